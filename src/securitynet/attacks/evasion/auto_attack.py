"""AutoAttack: four parameter-free attacks in sequence, each on the images that withstood the previous ones.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(2020), the standard version: APGD on the cross-entropy, targeted APGD on the difference of logits ratio, targeted FAB,
and the square attack; as implemented in torchattacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import GradientAttack, vanished
from securitynet.attacks.evasion._norms import ROUNDING, Norm, sizes
from securitynet.attacks.evasion._pieces import Oracle
from securitynet.attacks.evasion._torchattacks import CountedModel, package, seeded
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.attacks.evasion.square import LEAST_SIDE
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed

MOST_TARGETS = 9
"""Largest number of classes that targeted attacks aim at, in the order of the logits."""

FEWEST_FOR_RATIO = 4
"""Smallest number of classes for the targeted difference-of-logits ratio."""


class AutoAttack(GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Targeted APGD is omitted with fewer than four classes, and the square attack in L2 for images that are not square,
    because the package does not support them; the notes say so.

    Attributes:
        norm: Norm of the perturbation.
        steps: Iterations of APGD and FAB.
        queries: Iterations of the square attack.
    """

    costs: ClassVar[str | None] = "takes thousands of forward and backward passes for each image that withstands it"
    most_together: ClassVar[int] = 32

    samples: int = Field(default=100, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.03,), min_length=1, description="Largest norms of a perturbation, for images in [0, 1]."
    )
    norm: Norm = Field(default="linf", description="Norm of the perturbation.")
    steps: int = Field(default=100, ge=2, description="Iterations of APGD and FAB.")
    queries: int = Field(default=5000, ge=1, description="Iterations of the square attack.")

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
        return super().sample(target, data, seed)

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take, network = InputGradients(target, loss=log_odds), target.module
        device, half = target.backend.device, target.precision == "bf16"
        classes, shape = data.dataset.num_classes, data.dataset.image_shape

        def compute_logits(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                logits: torch.Tensor = network(images)
            return logits.float()

        model = CountedModel(compute_logits, device)

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            lost = vanished(take(batch.images, batch.labels).gradients).numpy()
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            examples = []
            for epsilon in self.epsilons:
                seed = derived_seed(context.seed, f"auto-attack at {epsilon:g}", batch.number)
                for attack in self._attacks(model, epsilon, classes, shape, seed):
                    if not len(rows):
                        break
                    with seeded(seed):
                        perturbed = attack(batch.images[rows].to(device), batch.labels[rows].to(device)).detach().cpu()
                    wrong = take.logits(perturbed).argmax(dim=1) != batch.labels[rows]
                    wrong &= sizes(perturbed - batch.images[rows], self.norm) <= epsilon * (1 + ROUNDING) + ROUNDING
                    best[rows[wrong]] = perturbed[wrong].clamp(0, 1)
                    rows = rows[~wrong]
                examples.append(best.clone())
            return Perturbed(torch.stack(examples)[None], vanished=lost)

        return Perturber(perturb, notes=tuple(self._omissions(classes, shape)))

    def _attacks(
        self, network: CountedModel, epsilon: float, classes: int, shape: tuple[int, int, int], seed: int
    ) -> Iterator[Any]:
        kit, short = package(), seed % (1 << 31)
        common = {"eps": epsilon, "norm": {"linf": "Linf", "l2": "L2"}[self.norm], "seed": short}
        yield kit.APGD(network, steps=self.steps, loss="ce", **common)
        if classes >= FEWEST_FOR_RATIO:
            # The package targets one class less than the number of classes, and at most nine.
            yield kit.APGDT(network, steps=self.steps, n_classes=min(classes, MOST_TARGETS + 1), **common)
        yield kit.FAB(
            network, steps=self.steps, multi_targeted=True, n_classes=min(classes, MOST_TARGETS + 1), **common
        )
        if self._takes_squares(shape):
            yield kit.Square(network, n_queries=self.queries, **common)

    def _takes_squares(self, shape: tuple[int, int, int]) -> bool:
        return self.norm == "linf" or (shape[1] == shape[2] and shape[1] >= LEAST_SIDE)

    def _omissions(self, classes: int, shape: tuple[int, int, int]) -> Iterator[str]:
        if classes < FEWEST_FOR_RATIO:
            yield f"Without targeted APGD, which needs {FEWEST_FOR_RATIO} classes."
        if not self._takes_squares(shape):
            yield "Without the square attack, which in L2 takes square images only."
