"""Prediction correctness: a record is called a member if the target classifies it correctly.

Yeom et al., "Privacy risk in machine learning" (2018), section 3; SecurityNet, section 3.2. Its AUC is one half plus
half of the overfitting level, so it is the baseline that every other attack has to beat.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class Correctness(ThresholdAttack):
    """The score is 1 if the prediction is the label, and 0 otherwise. The threshold is fixed, so no data are needed."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    fixed_threshold: ClassVar[float | None] = 0.5

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        return signals.correct.astype(np.float64)
