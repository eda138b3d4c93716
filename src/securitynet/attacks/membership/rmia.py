"""RMIA: how often a record's likelihood ratio beats that of records of the population.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3. Online: each judged
record is in the training sets of about half of the shadow models.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.membership import _rmia
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import ONLINE, Evidence
from securitynet.records import ThreatModel


class RMIA(ReferenceModelAttack):
    """Score is the share of known non-members whose ratio the record's exceeds by the factor gamma."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "online"

    gamma: float = Field(default=1.0, gt=0, description="Factor by which a ratio must exceed another.")
    break_ties: bool = Field(default=True, description="Order records of one score by their ratios.")

    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `ReferenceAttack.signal`."""
        return log_confidence(logits, labels)

    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        """See `ReferenceAttack.score`."""
        ratios, others = (
            _rmia.log_ratio_online(part.observed, part.shadows, part.included) for part in (records, population)
        )
        return _rmia.scores(ratios, others, self.gamma, break_ties=self.break_ties)
