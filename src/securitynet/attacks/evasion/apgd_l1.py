"""APGD in L1: the sum of all changes is bounded, so that few pixels change by much or many by little.

Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers" (2021): steps along the
largest values of the gradient, and projections onto the L1 ball within [0, 1].
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._apgd import run_l1
from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import GradientAttack, find_vanished
from securitynet.attacks.evasion._norms import Norm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator


class ApgdL1(GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Attributes:
        steps: Number of iterations.
        restarts: Number of starting points.
    """

    costs: ClassVar[str | None] = "takes hundreds of forward and backward passes for each image"
    most_together: ClassVar[int] = 64

    samples: int = Field(default=200, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(6.0, 12.0), min_length=1, description="Largest sums of all changes, for images in [0, 1]."
    )
    steps: int = Field(default=100, ge=3, description="Number of iterations.")
    restarts: int = Field(default=1, ge=1, description="Starts for each image.")

    @property
    @override
    def measured_in(self) -> Norm:
        return "l1"

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take = InputGradients(target, loss=log_odds)
        stop_early = not is_averaged(target)

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            lost = find_vanished(take(batch.images, batch.labels).gradients).numpy()
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            examples = []
            for epsilon in self.epsilons:
                for restart in range(self.restarts):
                    if not len(rows):
                        break
                    labels = batch.labels[rows]
                    points, _ = run_l1(
                        take,
                        batch.images[rows],
                        labels,
                        labels,
                        epsilon=epsilon,
                        steps=self.steps,
                        random=make_generator(context.seed, f"apgd-l1 start {restart} at {epsilon:g}", batch.number),
                        stop_early=stop_early,
                    )
                    best[rows] = points
                    rows = rows[take.logits(points).argmax(dim=1) == labels]
                examples.append(best.clone())
            return Perturbed(torch.stack(examples)[None], vanished=lost)

        return Perturber(perturb)
