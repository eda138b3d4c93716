"""Offline RMIA: likelihood ratios against the population, with shadow models trained on other data only.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership import _rmia
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._evidence import SignalEvidence, StandInTarget, choose_by_low_fpr
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import OFFLINE
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel

A_VALUES = tuple(number / 10 for number in range(11))
UNTUNED_A = 1.0


class RMIAOffline(ReferenceModelAttack):
    """The score is the share of the shadow data whose ratio is exceeded by the factor gamma.

    The population is the shadow data, with which the target is queried as well. For its records z, Pr(z) is the mean
    over the shadow models without z, as in the authors' implementation.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"
    queries_population: ClassVar[bool] = True
    fewest_shadows: ClassVar[int] = 1
    version: ClassVar[int] = 2  # tuned on stand-in targets that are exchangeable with the target

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )
    a: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The a in Pr(x) ≈ ((1+a)·Pr(x)_out + 1−a)/2. Default: tuned on shadow models.",
    )
    gamma: float = Field(default=1.0, gt=0, description="Factor by which a ratio must exceed another.")
    break_ties: bool = Field(default=True, description="Order records with equal scores by their ratios.")

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return log_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        a = UNTUNED_A if self.a is None else self.a
        ratios = _rmia.log_ratio_offline(records.observed, records.shadows, records.included, a)
        others = _rmia.log_ratio_offline(population.observed, population.shadows, population.included, 1.0)
        return _rmia.score_population_share(ratios, others, self.gamma, break_ties=self.break_ties)

    @override
    def tuned(self, stand_ins: Sequence[StandInTarget]) -> RMIAOffline:
        """Tune ``a`` on shadow models in the role of the target, unless it is given."""
        if self.a is not None or not stand_ins:
            return self
        tried = [self.model_copy(update={"a": a}) for a in A_VALUES]
        return choose_by_low_fpr(tried, stand_ins)
