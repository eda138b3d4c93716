"""Loss: a record is called a member if the target's cross-entropy loss on it is low.

Yeom et al., "Privacy risk in machine learning" (2018), section 3.2. Their threshold is the mean training loss; here it
is tuned on the records that the adversary knows, which is never worse for the adversary.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class Loss(ThresholdAttack):
    """The score is minus the loss, which is the logarithm of the posterior of the true class."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        return log_confidence(signals.logits, signals.labels)
