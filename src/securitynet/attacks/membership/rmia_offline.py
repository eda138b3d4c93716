"""RMIA offline: likelihood ratios against the population, with shadow models of other data only.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.membership import _rmia
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import (
    OFFLINE,
    Evidence,
    Pretended,
    best_setting,
)
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel

A_VALUES = tuple(number / 10 for number in range(11))
UNTUNED_A = 1.0


class RMIAOffline(ReferenceModelAttack):
    """Score is the share of the shadow data whose ratio the record's exceeds by the factor gamma.

    The population is the shadow data, about which the target is asked too. For it Pr(z) is the mean over the shadow
    models without z, as in the authors' implementation.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"
    asks_population: ClassVar[bool] = True

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )
    a: float | None = Field(
        default=None, ge=0, le=1, description="Of Pr(x) ≈ ((1+a)·Pr(x)_out + 1−a)/2. Default: chosen on shadow models."
    )
    gamma: float = Field(default=1.0, gt=0, description="Factor by which a ratio must exceed another.")
    break_ties: bool = Field(default=True, description="Order records of one score by their ratios.")

    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `ReferenceAttack.signal`."""
        return log_confidence(logits, labels)

    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        """See `ReferenceAttack.score`."""
        a = UNTUNED_A if self.a is None else self.a
        ratios = _rmia.log_ratio_offline(records.observed, records.shadows, records.included, a)
        others = _rmia.log_ratio_offline(population.observed, population.shadows, population.included, 1.0)
        return _rmia.scores(ratios, others, self.gamma, break_ties=self.break_ties)

    def tuned(self, pretended: list[Pretended]) -> RMIAOffline:
        """With ``a`` chosen on shadow models that play the target, unless it is given."""
        if self.a is not None or not pretended:
            return self
        return self.model_copy(update={"a": best_setting(self, pretended, "a", A_VALUES)})
