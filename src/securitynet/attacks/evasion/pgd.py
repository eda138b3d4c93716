"""PGD: small steps along the gradient, each projected back into the budget, in L∞ or L2, with random restarts.

Madry et al., "Towards deep learning models resistant to adversarial attacks" (2018), section 2.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import (
    LOSSES,
    GradientAttack,
    LossName,
    draw_starts,
    find_vanished,
    iterate,
)
from securitynet.attacks.evasion._norms import SmoothNorm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.target import Target

L2_EPSILONS = (0.25, 0.5, 1.0)
"""Default budgets in L2, which are common for 32×32 colour images."""


class Pgd(GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Attributes:
        norm: Norm of the perturbation.
        steps: Number of steps from each start.
        step: Size of a step, as a multiple of ``epsilon / steps``.
        restarts: Number of starts, including the first.
        random_start: Whether the first start is a random point within the budget instead of the image; restarts always
            are.
        loss: Loss to maximise. The gradient of the log-odds has the direction of the cross-entropy's and does not
            saturate.
        stop_early: Whether to stop on an image once it evades, which saves most of the passes. Random targets are never
            stopped on: a single misclassification may be chance.
    """

    targeted: ClassVar[bool] = False

    costs: ClassVar[str | None] = "takes tens of forward and backward passes for each image"

    norm: SmoothNorm = Field(default="linf", description="Norm of the perturbation.")
    steps: int = Field(default=20, ge=1, description="Steps from each start.")
    step: float = Field(default=2.5, gt=0, allow_inf_nan=False, description="Size of a step, times epsilon / steps.")
    restarts: int = Field(default=1, ge=1, description="Starts for each image.")
    random_start: bool = Field(default=True, description="Start at a random point instead of the image.")
    loss: LossName = Field(default="log-odds", description="What is made large.")
    stop_early: bool = Field(default=True, description="Stop on an image once it evades.")

    @model_validator(mode="before")
    @classmethod
    def _epsilons_of_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm") == "l2" and "epsilons" not in values:
            return {**values, "epsilons": L2_EPSILONS}
        return values

    @property
    @override
    def measured_in(self) -> SmoothNorm:
        return self.norm

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        loss, targeted = LOSSES[self.loss], self.targeted
        take = InputGradients(target, loss=(lambda logits, goals: -loss(logits, goals)) if targeted else loss)
        stop_early, classes = self.stop_early and not is_averaged(target), data.dataset.num_classes

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            classes_of = self.goals(take, batch, classes, context.seed) if targeted else batch.labels
            lost = find_vanished(take(batch.images, classes_of).gradients).numpy()
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            examples = []
            for epsilon in self.epsilons:
                for restart in range(self.restarts):
                    if not len(rows):
                        break
                    images, start = batch.images[rows], batch.images[rows]
                    if self.random_start or restart:
                        purpose = f"pgd start {restart} at {epsilon:g}"
                        start = draw_starts(batch.images, epsilon, self.norm, context.seed, purpose, batch.number)[rows]
                    best[rows], done = iterate(
                        take,
                        images,
                        classes_of[rows],
                        epsilon=epsilon,
                        norm=self.norm,
                        steps=self.steps,
                        step=self.step * epsilon / self.steps,
                        start=start,
                        stop_early=stop_early,
                        targeted=targeted,
                    )
                    rows = rows[~done]
                examples.append(best.clone())
            goals = classes_of.numpy() if targeted else None
            return Perturbed(torch.stack(examples)[None], vanished=lost, goals=goals)

        return Perturber(perturb)

    def goals(self, take: InputGradients, batch: Batch, classes: int, seed: int) -> torch.Tensor:
        """Return the class that each image is to be classified as, n; for targeted attacks only.

        Args:
            take: Gradients and logits of the target.
            batch: Images.
            classes: Number of classes.
            seed: Seed of the run.
        """
        raise ConfigurationError(f"{type(self).__name__} makes no targeted examples.")
