"""Confidence: a record is called a member if the target is confident in its prediction.

Salem et al., "ML-Leaks" (2019), section 5: the largest posterior, whatever the true class, so the adversary needs no
labels. The posterior of the true class (Song and Mittal, 2021, equation 6) is an option; it ranks records exactly as
the loss does.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._confidence import scale_confidence, scale_top_confidence
from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class Confidence(ThresholdAttack):
    """The score is the logit of the posterior of the predicted (or the true) class: it is monotone and avoids ties."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    of: Literal["prediction", "label"] = Field(default="prediction", description="Class whose posterior is used.")

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        if self.of == "label":
            return scale_confidence(signals.logits, signals.labels)
        return scale_top_confidence(signals.logits)
