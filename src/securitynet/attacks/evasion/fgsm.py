"""FGSM: one step along the sign of the gradient of the loss, with the target's own gradients.

Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4; in pixel space at
epsilon 0.01, 0.03 and 0.1, as in SecurityNet, Appendix C.
"""

from __future__ import annotations

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import LOSSES, GradientAttack, LossName, compute_signs, take_step
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.target import Target


class Fgsm(GradientAttack):
    """One gradient serves all epsilons. Misclassified images are perturbed as well, as in the paper.

    Where 1 - p is below 1e-4 for the posterior p of the label, the gradient of the cross-entropy loses its digits in
    single precision; the step then follows the log-odds, whose gradient has the same direction and keeps them.

    Attributes:
        loss: Loss whose gradient is followed.
    """

    loss: LossName = Field(default="cross-entropy", description="Loss whose gradient is followed.")

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take = InputGradients(target, loss=LOSSES[self.loss])

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            gradient_signs = compute_signs(take, batch.images, batch.labels)
            examples = torch.stack(
                [take_step(batch.images, gradient_signs.signs, epsilon) for epsilon in self.epsilons]
            )
            return Perturbed(examples[None], vanished=gradient_signs.vanished)

        return Perturber(perturb)
