"""ML-Doctor, black-box: a network learns from ranked posteriors and from whether the prediction is correct.

ML-Doctor, sections 3.1 and 5.2 (after Salem et al., ML-Leaks, 2019): each of the two inputs is processed by a 2-layer
MLP, and their joined outputs by a 4-layer MLP; batches of 64, 50 epochs of Adam at 1e-5. The layer widths are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn
from typing_extensions import override

from securitynet.attacks.membership._features import rank_values, scale_logits
from securitynet.attacks.membership._learned import MLP, Features, Joined, LearnedAttack
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowTraining
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class MLDoctorBlackBox(LearnedAttack):
    """The inputs are the posteriors in descending order, and 1 for a correct prediction.

    Attributes:
        scale: ``logit``: log p − log(1 − p) of each posterior, which tells 0.999 from 1; ``posterior``: p itself, as in
            the paper.
        learning_rate: Learning rate of Adam. The paper's 1e-5 suits tens of thousands of records; on a few hundred, the
            network hardly changes in 50 epochs, and a note of the result says so.
        shadow_training: How the shadow model is trained, under ``shadow`` auxiliary data.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW),
    )

    costs: ClassVar[str | None] = "trains an attack network and, with shadow data, a shadow model"
    trains_like_target: ClassVar[bool] = True

    # Left out of the trial id at its default: trials keep the ids that they had.
    scale: Literal["logit", "posterior"] = Field(default="logit", exclude_if=lambda value: value == "logit")
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    shadow_training: ShadowTraining = ShadowTraining()

    @override
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        posteriors = scale_logits(signals.logits) if self.scale == "logit" else signals.posteriors
        return rank_values(posteriors), signals.correct[:, None].astype(np.float32)

    @override
    def network(self, widths: Sequence[int]) -> nn.Module:
        branches = [MLP(width, 128, 64, last=True) for width in widths]
        return Joined(branches, MLP(64 * len(branches), 256, 128, 64, 2))

    @override
    def shadow(self) -> ShadowTraining:
        return self.shadow_training
