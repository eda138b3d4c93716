"""ML-Doctor, white-box: a network learns from posteriors, loss, label, and the gradient of the last layer.

ML-Doctor, sections 3.1 and 5.2 (after Nasr et al., 2019): each of the four inputs is processed by its own network, and
their joined outputs by a 4-layer MLP; batches of 64, 50 epochs of Adam at 1e-5. The layer sizes are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn
from typing_extensions import override

from securitynet.attacks.membership._features import (
    Scale,
    encode_one_hot,
    project_gradients,
    rank_gradients,
    scale_logits,
)
from securitynet.attacks.membership._learned import MLP, Features, Joined, LearnedAttack
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowTraining
from securitynet.models.targets.gradients import capture_last_layer
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel


class MLDoctorWhiteBox(LearnedAttack):
    """The inputs are the posteriors, the loss, the last layer's gradients and the one-hot label.

    Attributes:
        scale: ``logit``: log p − log(1 − p) of each posterior and, with its sign reversed, that of the label as the
            loss; ``posterior``: p itself and the cross-entropy, as in the paper.
        learning_rate: See `MLDoctorBlackBox`.
        gradients: ``ranked``: sorted in an order that is comparable between models (`rank_gradients`); ``raw``:
            unsorted, or randomly projected (`project_gradients`).
        gradient_inputs: Largest number of gradient values given to the attack network; each takes 4 bytes per record.
        shadow_training: How the shadow model is trained, under ``shadow`` auxiliary data. With ``raw`` gradients, its
            last layer must have the same shape as the target's.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.SHADOW),
    )

    costs: ClassVar[str | None] = "trains an attack network and, with shadow data, a shadow model"
    trains_like_target: ClassVar[bool] = True

    # Left out of the trial id at its default: trials keep the ids that they had.
    scale: Literal["logit", "posterior"] = Field(default="logit", exclude_if=lambda value: value == "logit")
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    gradients: Literal["ranked", "raw"] = "ranked"
    gradient_inputs: int = Field(default=256, ge=1)
    shadow_training: ShadowTraining = ShadowTraining()

    @override
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        posteriors = scale_logits(signals.logits)
        loss = -posteriors[np.arange(len(signals)), signals.labels][:, None]
        if self.scale == "posterior":
            posteriors, loss = signals.posteriors, np.logaddexp(0, loss, dtype=np.float32)
        layer = capture_last_layer(model, data.dataset, signals.indices, progress=context.progress)
        if self.gradients == "ranked":
            gradients = rank_gradients(layer, signals.labels, self.gradient_inputs)
        else:
            gradients = project_gradients(
                layer, self.gradient_inputs, make_generator(context.seed, "gradient projection")
            )
        return posteriors, loss, gradients, encode_one_hot(signals.labels, posteriors.shape[1])

    @override
    def scales(self, features: Features) -> list[Scale]:
        return [Scale(values, compress=number == 2) for number, values in enumerate(features)]

    @override
    def network(self, widths: Sequence[int]) -> nn.Module:
        branches = [MLP(width, 128, 64, last=True) for width in widths]
        return Joined(branches, MLP(64 * len(branches), 256, 128, 64, 2))

    @override
    def shadow(self) -> ShadowTraining:
        return self.shadow_training
