"""Square attack: random squares that lower the margin, by the target's answers alone and within a budget of questions.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search" (2020), as
implemented in torchattacks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._norms import Norm
from securitynet.attacks.evasion._pieces import Oracle
from securitynet.attacks.evasion._torchattacks import CountedModel, package, seeded
from securitynet.attacks.evasion.base import EvasionAttack, Perturbed, Perturber
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, ThreatModel

OVERHEAD = 4
"""Questions besides those of the search: is the image classified correctly, the first guess, and twice the result."""

LEAST_SIDE = 5
"""Of an image, for the L2 attack, which starts with five by five squares."""


class Square(EvasionAttack):
    """Correctly classified images only are perturbed. What evades at an epsilon is kept for the larger ones.

    Attributes:
        norm: Of the perturbation.
        queries: Questions for each image and epsilon, at most.
        start: Share of the image that the first squares cover; the paper's p.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    costs: ClassVar[str | None] = "asks the target up to a thousand questions for each of a sample of images"
    most_together: ClassVar[int] = 64

    samples: int = Field(default=100, ge=1, description="How many non-members are perturbed.")
    epsilons: tuple[float, ...] = Field(
        default=(0.03,), min_length=1, description="Largest norms of a perturbation, for images in [0, 1]."
    )
    norm: Norm = Field(default="linf", description="Norm of the perturbation.")
    queries: int = Field(default=1000, gt=OVERHEAD, description="Most questions for each image and epsilon.")
    start: float = Field(default=0.8, gt=0, le=1, description="Share of the image that the first squares cover.")

    @model_validator(mode="before")
    @classmethod
    def _epsilons_of_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm") == "l2" and "epsilons" not in values:
            return {**values, "epsilons": (0.5,)}
        return values

    @property
    def measured_in(self) -> Norm:
        """See `EvasionAttack.measured_in`."""
        return self.norm

    def sample(self, target: Target, data: TrialData, seed: int) -> NDArray[np.int64]:
        """See `EvasionAttack.sample`."""
        package()
        found = super().sample(target, data, seed)
        check_shape(self.norm, data.dataset.image_shape)
        if target.head == "labels":
            raise ConfigurationError(
                f"{target.reference} answers with labels only; the square attack needs posteriors.",
                hint="Use fgsm-transfer, which needs no answers.",
            )
        return found

    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        """See `EvasionAttack.prepare`."""

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            kept, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            spent = np.zeros((len(self.epsilons), len(batch.labels)), dtype=np.int64)
            examples = []
            for e, epsilon in enumerate(self.epsilons):
                if len(rows):
                    seed = derived_seed(context.seed, f"square at {epsilon:g}", batch.number)
                    found, asked = self._search(oracle, batch.images[rows], batch.labels[rows], epsilon, seed)
                    spent[e, rows.numpy()] = asked
                    moved = (found != batch.images[rows]).flatten(1).any(dim=1)
                    kept[rows[moved]] = found[moved]
                    rows = rows[~moved]  # the package gives images back as they were where it finds nothing
                examples.append(kept.clone())
            return Perturbed(torch.stack(examples)[None], spent=spent)

        return Perturber(perturb)

    def _search(
        self, oracle: Oracle, images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int
    ) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Examples, and questions asked for each image."""
        network = CountedModel(lambda asked: oracle.logits(asked.detach()), torch.device("cpu"))
        attack = package().Square(
            network,
            norm={"linf": "Linf", "l2": "L2"}[self.norm],
            eps=epsilon,
            n_queries=self.queries - OVERHEAD,
            p_init=self.start,
            seed=seed % (1 << 31),
        )
        search, spent = attack.attack_single_run, np.full(len(labels), OVERHEAD - 1, dtype=np.int64)

        def counted(x: torch.Tensor, y: torch.Tensor) -> Any:
            asked, found = search(x, y)
            spent[:] = asked.numpy().astype(np.int64) + OVERHEAD - 1  # the package's count holds the first guess
            return asked, found

        attack.attack_single_run = counted
        with seeded(seed):
            found: torch.Tensor = attack(images, labels)
        return found.detach(), spent


def check_shape(norm: Norm, shape: tuple[int, int, int]) -> None:
    """Raise `ConfigurationError` unless the package's square attack takes images of shape (C, H, W)."""
    _, height, width = shape
    if norm == "l2" and (height != width or height < LEAST_SIDE):
        raise ConfigurationError(
            f"The square attack in L2 takes square images of {LEAST_SIDE} pixels or more; these are {height}×{width}.",
            hint="Use norm=linf, or resize the images with --image-size N.",
        )
