"""LiRA: the likelihood ratio of shadow models that were trained on the record to others that were not.

Carlini et al., "Membership inference attacks from first principles" (2022), section 5.1. Online: each judged record is
in the training sets of about half of the shadow models.
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
from securitynet.attacks.membership._reference import ONLINE, ReferenceAttack
from securitynet.records import ThreatModel


class LiRA(ReferenceAttack):
    """The score is the log-likelihood ratio of the scaled confidence."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "online"

    variance: _lira.Variance = Field(
        default="fixed", description="A common variance for all records, or one per record (from 16 shadow models on)."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return scale_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        variance, _ = _lira.settle_variance(self.variance, self.shadows.count)
        return _lira.compute_online_ratio(records.observed, records.shadows, records.included, variance=variance)

    def score_leave_one_out(self, signals: NDArray[np.float64], included: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the score of each record under each of M models, with all others as its shadow models, M×N.

        Whether a record is in one training set must not depend on the other training sets. Where each record is in
        equally many of them, a model that remembers nothing would seem to have forgotten.

        Args:
            signals: Signal of each record under each model, M×N.
            included: Whether the model was trained on the record, M×N.
        """
        variance, _ = _lira.settle_variance(self.variance, len(signals) - 1)
        scores = np.empty(signals.shape)
        for number, observed in enumerate(signals):
            others = np.arange(len(signals)) != number
            scores[number] = _lira.compute_online_ratio(observed, signals[others], included[others], variance=variance)
        return scores

    @override
    def notes(self) -> tuple[str, ...]:
        return _lira.settle_variance(self.variance, self.shadows.count)[1]
