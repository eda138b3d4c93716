"""AutoAttack: four parameter-free attacks in sequence, each on the images that withstood the previous ones.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(2020), the standard version: APGD on the cross-entropy, targeted APGD on the difference of logits ratio, targeted FAB,
and the square attack. FAB and the square attack are those of torchattacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import GradientAttack, find_vanished
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion._sequence import AttackPart, SequenceAttack
from securitynet.attacks.evasion._targeted_apgd import FEWEST_FOR_RATIO, MOST_TARGETS, make_targeted, make_untargeted
from securitynet.attacks.evasion._torchattacks import CountedModel, import_torchattacks, use_seed
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.attacks.evasion.square import LEAST_SIDE, make_square
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target


class AutoAttack(SequenceAttack, GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Each part reports the share of the images that it was the first to make evade. Targeted APGD is omitted with fewer
    than four classes, and the square attack in L2 for images that are not square. On random targets only the two parts
    with APGD run, as in the authors' version for them. The notes say so.

    Attributes:
        steps: Iterations of APGD and FAB.
        queries: Iterations of the square attack.
    """

    version: ClassVar[int] = 2  # its square attack's
    costs: ClassVar[str | None] = "takes thousands of forward and backward passes for each image that withstands it"

    steps: int = Field(default=100, ge=2, description="Iterations of APGD and FAB.")
    queries: int = Field(default=5000, ge=1, description="Iterations of the square attack.")

    @override
    def purpose(self) -> str:
        return "auto-attack"

    @override
    def sample(self, target: Target, data: TrialData, seed: int) -> NDArray[Any]:
        import_torchattacks()
        return super().sample(target, data, seed)

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take = InputGradients(target, loss=log_odds)
        classes, shape = data.dataset.num_classes, data.dataset.image_shape
        parts = list(self.make_parts(target, classes, shape))

        def judge(oracle: Oracle, perturbed: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return take.logits(perturbed).argmax(dim=1) != labels

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            lost = find_vanished(take(batch.images, batch.labels).gradients).numpy()
            return self.run_parts(lambda _: parts, batch, oracle, context.seed, judge, lost)

        notes = tuple(self._omissions(target, classes, shape))
        return Perturber(perturb, parts=tuple(part.name for part in parts), notes=notes)

    def make_parts(self, target: Target, classes: int, shape: tuple[int, int, int]) -> Iterator[AttackPart]:
        """Make the parts, in the order in which they run.

        Args:
            target: The target, under white-box access.
            classes: Number of classes.
            shape: Of its images, (C, H, W).
        """
        yield make_untargeted(target, self.norm, self.steps)
        if classes >= FEWEST_FOR_RATIO:
            yield make_targeted(target, self.norm, self.steps, classes)
        if is_averaged(target):
            return
        device, half, network = target.backend.device, target.precision == "bf16", target.module

        def compute_logits(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                logits: torch.Tensor = network(images)
            return logits.float()

        model = CountedModel(compute_logits, device)
        yield AttackPart("fab-t", _searching(lambda epsilon, seed: self._fab(model, classes, epsilon, seed), device))
        if self._takes_squares(shape):
            yield AttackPart(
                "square",
                _searching(
                    lambda epsilon, seed: make_square(
                        # The authors do not shorten the schedule of square sizes to fewer iterations.
                        model,
                        self.norm,
                        epsilon,
                        seed,
                        n_queries=self.queries,
                        resc_schedule=False,
                    ),
                    device,
                ),
            )

    def _fab(self, model: CountedModel, classes: int, epsilon: float, seed: int) -> Any:
        return import_torchattacks().FAB(
            model,
            norm={"linf": "Linf", "l2": "L2"}[self.norm],
            eps=epsilon,
            steps=self.steps,
            multi_targeted=True,
            # The package targets one class less than the number of classes.
            n_classes=min(classes, MOST_TARGETS + 1),
            seed=seed % (1 << 31),
        )

    def _takes_squares(self, shape: tuple[int, int, int]) -> bool:
        return self.norm == "linf" or (shape[1] == shape[2] and shape[1] >= LEAST_SIDE)

    def _omissions(self, target: Target, classes: int, shape: tuple[int, int, int]) -> Iterator[str]:
        if classes < FEWEST_FOR_RATIO:
            yield f"Without targeted APGD, which needs {FEWEST_FOR_RATIO} classes."
        if is_averaged(target):
            yield "Without FAB and the square attack, which accept the first misclassification of a random target."
        elif not self._takes_squares(shape):
            yield "Without the square attack, which in L2 takes square images only."


def _searching(
    make: Callable[[float, int], Any], device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor, float, int], tuple[torch.Tensor, None]]:
    """Wrap an attack of the package, made for an epsilon and a seed, as the search of a part."""

    def search(images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int) -> tuple[torch.Tensor, None]:
        with use_seed(seed):
            return make(epsilon, seed)(images.to(device), labels.to(device)).detach().cpu(), None

    return search
