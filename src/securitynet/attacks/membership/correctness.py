"""Prediction correctness: a record is called a member if the target classifies it correctly.

Yeom et al., "Privacy risk in machine learning" (2018), section 3; SecurityNet, section 3.2. Its AUC is one half plus
half of the overfitting level, so it is the baseline that any other attack has to beat.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class Correctness(ThresholdAttack):
    """Score 1 if the prediction is the label, else 0. Needs no auxiliary data: its threshold is fixed."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    fixed_threshold: ClassVar[float | None] = 0.5

    def score(self, signals: Signals) -> NDArray[np.float64]:
        """See `ThresholdAttack.score`."""
        return signals.correct.astype(np.float64)
