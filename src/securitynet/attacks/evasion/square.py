"""Square attack: a random search for squares that lower the margin, with black-box access and a query budget.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search" (2020), as
implemented in torchattacks, with one correction in L2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._norms import SmoothNorm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion._sequence import AttackPart, SequenceAttack
from securitynet.attacks.evasion._torchattacks import CountedModel, import_torchattacks, use_seed
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

OVERHEAD = 4
"""Queries besides those of the search: one for the original image, one for the first guess, and two for the result."""

LEAST_SIDE = 5
"""Smallest side of an image for the L2 attack, which starts with five by five squares."""


class Square(SequenceAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Attributes:
        queries: Largest number of queries per image and epsilon.
        start: Share of the image that the first squares cover; the paper's p.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    version: ClassVar[int] = 2  # in L2, windows of colour images are scaled channel by channel
    costs: ClassVar[str | None] = "queries the target up to a thousand times for each image of a sample"
    most_together: ClassVar[int] = 64

    queries: int = Field(default=1000, gt=OVERHEAD, description="Largest number of queries per image and epsilon.")
    start: float = Field(default=0.8, gt=0, le=1, description="Share of the image that the first squares cover.")

    @override
    def purpose(self) -> str:
        return "square"

    @override
    def sample(self, target: Target, data: TrialData, seed: int) -> NDArray[np.int64]:
        import_torchattacks()
        sample = super().sample(target, data, seed)
        check_shape(self.norm, data.dataset.image_shape)
        if target.head == "labels":
            raise AccessDenied(
                f"{target.reference} returns labels only; the square attack needs posteriors.",
                hint="Use fgsm-transfer, which needs no outputs.",
            )
        return sample

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        def judge(oracle: Oracle, perturbed: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            # The package returns an image unchanged if it finds no example.
            moved = (perturbed != images).flatten(1).any(dim=1)
            if is_averaged(target) and bool(moved.any()):  # a single output of a random target may be chance
                moved[moved.clone()] = oracle.labels(perturbed[moved]) != labels[moved]
            return moved

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            return self.run_parts(lambda own: [self._part(own)], batch, oracle, context.seed, judge)

        return Perturber(perturb)

    def _part(self, oracle: Oracle) -> AttackPart:
        def search(
            images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int
        ) -> tuple[torch.Tensor, NDArray[np.int64]]:
            first: list[NDArray[np.bool_]] = []

            def compute(queried: torch.Tensor) -> torch.Tensor:
                logits = oracle.logits(queried.detach())
                if not first:
                    first.append((logits.argmax(dim=1) == labels).numpy())
                return logits

            network = CountedModel(compute, torch.device("cpu"))
            attack = make_square(
                network, self.norm, epsilon, seed, n_queries=self.queries - OVERHEAD, p_init=self.start
            )
            run, spent = attack.attack_single_run, np.full(len(labels), OVERHEAD - 1, dtype=np.int64)

            def count(x: torch.Tensor, y: torch.Tensor) -> Any:
                queries, perturbed = run(x, y)
                # The package leaves out images that its first query gets wrong, as that of a random target may; its
                # count includes the first guess.
                spent[first[0]] = queries.numpy().astype(np.int64) + OVERHEAD - 1
                return queries, perturbed

            attack.attack_single_run = count
            with use_seed(seed):
                best: torch.Tensor = attack(images, labels)
            return best.detach(), spent

        return AttackPart("square", search)


def make_square(network: CountedModel, norm: SmoothNorm, epsilon: float, seed: int, **settings: Any) -> Any:
    """Make the package's attack.

    Args:
        network: The network or oracle.
        norm: Norm of the perturbation.
        epsilon: Largest norm.
        seed: Seed of its random numbers.
        settings: The package's own parameters.
    """
    attack = import_torchattacks().Square(
        network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=seed % (1 << 31), **settings
    )
    if norm == "l2":
        attack.lp_norm = _L2Norms()
    return attack


class _L2Norms:
    """The norms that the package's search in L2 asks for: three in each step.

    The second is that of both windows, by which the new window is scaled channel by channel. The package computes it
    over all channels, as the authors' program once did, which makes the attack weaker on colour images; here it is one
    for each channel, as in their program today.
    """

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, differences: torch.Tensor) -> torch.Tensor:
        """Norms of differences N×C×H×W: N×C×1×1 at every second of three calls, else N×1×1×1."""
        self._calls += 1
        axes = (2, 3) if self._calls % 3 == 2 else (1, 2, 3)
        norms: torch.Tensor = differences.square().sum(dim=axes, keepdim=True).sqrt()
        return norms


def check_shape(norm: SmoothNorm, shape: tuple[int, int, int]) -> None:
    """Raise `ConfigurationError` unless the package's square attack takes images of shape (C, H, W)."""
    _, height, width = shape
    if norm == "l2" and (height != width or height < LEAST_SIDE):
        raise ConfigurationError(
            f"The square attack in L2 takes square images of {LEAST_SIDE} pixels or more; these are {height}×{width}.",
            hint="Use norm=linf, or resize the images with --image-size N.",
        )
