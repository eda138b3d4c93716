"""Offline BaVarIA: how improbable the confidence on a record is for models trained on other data.

Brännvall, "Exponential-family membership inference: from LiRA and RMIA to BaVarIA" (2026). No shadow model is
trained on an evaluated record, so the same shadow models serve any number of records.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership import _bavaria
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership._reference import OFFLINE, ReferenceAttack
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel


class BaVarIAOffline(ReferenceAttack):
    """The score is minus the log-probability of a scaled confidence as high without the record (one-sided)."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"
    fewest_left_out: ClassVar[int] = 2

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )
    predictive: _bavaria.Predictive = Field(
        default="t", description="Student's t distribution, or a normal one with the stabilised variance."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return scale_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        return _bavaria.score_offline(records.observed, records.shadows, records.included, predictive=self.predictive)
