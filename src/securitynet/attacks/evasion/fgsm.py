"""FGSM: one step along the sign of the gradient of the loss, with the target's own gradients.

Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015), section 4; in pixel space at
epsilon 0.01, 0.03 and 0.1, as in SecurityNet, Appendix C.
"""

from __future__ import annotations

import torch
from pydantic import Field

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import LOSSES, GradientAttack, LossName, one_step, signs
from securitynet.attacks.evasion._pieces import Oracle
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target


class Fgsm(GradientAttack):
    """All epsilons are served by one gradient. Misclassified images are perturbed too, as in the paper.

    Where the gradient of the cross-entropy is 0 in every pixel, because single precision can't tell the posterior from
    1, the step follows the log-odds, whose gradient has the same direction and does not vanish.

    Attributes:
        loss: Which gradient is followed.
    """

    loss: LossName = Field(default="cross-entropy", description="Whose gradient is followed.")

    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        """See `EvasionAttack.prepare`."""
        take = InputGradients(target, loss=LOSSES[self.loss])
        spare = InputGradients(target, loss=log_odds)

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            found = signs(take, spare, batch.images, batch.labels)
            examples = torch.stack([one_step(batch.images, found.signs, epsilon) for epsilon in self.epsilons])
            return Perturbed(examples[None], vanished=found.vanished)

        return Perturber(perturb)
