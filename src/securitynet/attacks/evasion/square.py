"""Square attack: a random search for squares that lower the margin, with black-box access and a query budget.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search" (2020), as
implemented in torchattacks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

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
"""Queries besides those of the search: one for the original image, one for the first guess, and two for the result."""

LEAST_SIDE = 5
"""Smallest side of an image for the L2 attack, which starts with five by five squares."""


class Square(EvasionAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Attributes:
        norm: Norm of the perturbation.
        queries: Largest number of queries per image and epsilon.
        start: Share of the image that the first squares cover; the paper's p.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    costs: ClassVar[str | None] = "queries the target up to a thousand times for each image of a sample"
    most_together: ClassVar[int] = 64

    samples: int = Field(default=100, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.03,), min_length=1, description="Largest norms of a perturbation, for images in [0, 1]."
    )
    norm: Norm = Field(default="linf", description="Norm of the perturbation.")
    queries: int = Field(default=1000, gt=OVERHEAD, description="Largest number of queries per image and epsilon.")
    start: float = Field(default=0.8, gt=0, le=1, description="Share of the image that the first squares cover.")

    @model_validator(mode="before")
    @classmethod
    def _epsilons_of_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm") == "l2" and "epsilons" not in values:
            return {**values, "epsilons": (0.5,)}
        return values

    @property
    @override
    def measured_in(self) -> Norm:
        return self.norm

    @override
    def sample(self, target: Target, data: TrialData, seed: int) -> NDArray[np.int64]:
        package()
        sample = super().sample(target, data, seed)
        check_shape(self.norm, data.dataset.image_shape)
        if target.head == "labels":
            raise ConfigurationError(
                f"{target.reference} returns labels only; the square attack needs posteriors.",
                hint="Use fgsm-transfer, which needs no outputs.",
            )
        return sample

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            spent = np.zeros((len(self.epsilons), len(batch.labels)), dtype=np.int64)
            examples = []
            for e, epsilon in enumerate(self.epsilons):
                if len(rows):
                    seed = derived_seed(context.seed, f"square at {epsilon:g}", batch.number)
                    perturbed, queries = self._search(oracle, batch.images[rows], batch.labels[rows], epsilon, seed)
                    spent[e, rows.numpy()] = queries
                    moved = (perturbed != batch.images[rows]).flatten(1).any(dim=1)
                    best[rows[moved]] = perturbed[moved]
                    rows = rows[~moved]  # the package returns an image unchanged if it finds no example
                examples.append(best.clone())
            return Perturbed(torch.stack(examples)[None], spent=spent)

        return Perturber(perturb)

    def _search(
        self, oracle: Oracle, images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int
    ) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Return examples, and the number of queries for each image."""
        network = CountedModel(lambda queried: oracle.logits(queried.detach()), torch.device("cpu"))
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
            queries, perturbed = search(x, y)
            spent[:] = queries.numpy().astype(np.int64) + OVERHEAD - 1  # the package's count includes the first guess
            return queries, perturbed

        attack.attack_single_run = counted
        with seeded(seed):
            best: torch.Tensor = attack(images, labels)
        return best.detach(), spent


def check_shape(norm: Norm, shape: tuple[int, int, int]) -> None:
    """Raise `ConfigurationError` unless the package's square attack takes images of shape (C, H, W)."""
    _, height, width = shape
    if norm == "l2" and (height != width or height < LEAST_SIDE):
        raise ConfigurationError(
            f"The square attack in L2 takes square images of {LEAST_SIDE} pixels or more; these are {height}×{width}.",
            hint="Use norm=linf, or resize the images with --image-size N.",
        )
