"""BaVarIA: LiRA with Bayesian estimates of each record's mean and variance, for few shadow models.

Brännvall, "Exponential-family membership inference: from LiRA and RMIA to BaVarIA" (2026). Online: each judged
record is in the training sets of about half of the shadow models.
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
from securitynet.attacks.membership._reference import ONLINE, ReferenceAttack
from securitynet.records import ThreatModel


class BaVarIA(ReferenceAttack):
    """The score is the log-likelihood ratio of the scaled confidence under the predictive distributions."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "online"

    predictive: _bavaria.Predictive = Field(
        default="t", description="Student's t distribution, or a normal one with the stabilised variance."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return scale_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        return _bavaria.score_online(records.observed, records.shadows, records.included, predictive=self.predictive)
