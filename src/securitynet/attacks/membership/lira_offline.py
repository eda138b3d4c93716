"""Offline LiRA: how far the confidence on a record exceeds that of shadow models trained on other data.

Carlini et al., "Membership inference attacks from first principles" (2022), section 5.2. No shadow model is trained on
an evaluated record, so the same shadow models serve any number of records.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership._reference import OFFLINE, ReferenceAttack
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel


class LiRAOffline(ReferenceAttack):
    """The score is the number of standard deviations above the shadow models' mean scaled confidence (one-sided)."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"
    fewest_left_out: ClassVar[int] = 2

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )
    variance: _lira.Variance = Field(
        default="fixed", description="A common variance for all records, or one per record (from 16 shadow models on)."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return scale_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        variance, _ = _lira.settle_variance(self.variance, self.shadows.count)
        return _lira.compute_offline_score(records.observed, records.shadows, records.included, variance=variance)

    @override
    def notes(self) -> tuple[str, ...]:
        return _lira.settle_variance(self.variance, self.shadows.count)[1]
