"""RMIA: how often the likelihood ratio of a record exceeds that of records from the population.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3. Online: each judged
record is in the training sets of about half of the shadow models.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership import _rmia
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import ONLINE
from securitynet.records import ThreatModel


class RMIA(ReferenceModelAttack):
    """The score is the share of known non-members whose ratio is exceeded by the factor gamma."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "online"
    fewest_shadows: ClassVar[int] = 2

    gamma: float = Field(default=1.0, gt=0, description="Factor by which a ratio must exceed another.")
    break_ties: bool = Field(default=True, description="Order records with equal scores by their ratios.")

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return log_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        ratios, others = (
            _rmia.log_ratio_online(part.observed, part.shadows, part.included) for part in (records, population)
        )
        return _rmia.score_population_share(ratios, others, self.gamma, break_ties=self.break_ties)
