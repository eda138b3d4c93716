"""APGD-T: Auto-PGD towards each of the most likely other classes, AutoAttack's strongest single part.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(2020), sections 3 and 4.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import GradientAttack, find_vanished
from securitynet.attacks.evasion._sequence import SequenceAttack
from securitynet.attacks.evasion._targeted_apgd import FEWEST_FOR_RATIO, make_targeted, make_untargeted
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target


class ApgdT(SequenceAttack, GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    With fewer than four classes, for which the targeted loss is not defined, APGD on the cross-entropy runs instead.

    Attributes:
        steps: Iterations towards each class.
    """

    costs: ClassVar[str | None] = "takes up to nine hundred forward and backward passes for each image"

    steps: int = Field(default=100, ge=2, description="Iterations towards each class.")

    @override
    def purpose(self) -> str:
        return "apgd-t"

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take, classes = InputGradients(target, loss=log_odds), data.dataset.num_classes
        few = classes < FEWEST_FOR_RATIO
        if few:
            part = make_untargeted(target, self.norm, self.steps)
        else:
            part = make_targeted(target, self.norm, self.steps, classes)

        def judge(oracle: Oracle, perturbed: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return take.logits(perturbed).argmax(dim=1) != labels

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            lost = find_vanished(take(batch.images, batch.labels).gradients).numpy()
            return self.run_parts(lambda _: [part], batch, oracle, context.seed, judge, lost)

        note = f"APGD on the cross-entropy; the targeted loss needs {FEWEST_FOR_RATIO} classes."
        return Perturber(perturb, notes=(note,) if few else ())
