"""Entropy: a record is called a member if the entropy of its posterior is low.

Salem et al., "ML-Leaks" (2019), section 5; Song and Mittal (2021), equation 7. It ignores the label, so a confident
wrong prediction counts the same as a confident correct one; modified entropy corrects that.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership._confidence import compute_entropy
from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class Entropy(ThresholdAttack):
    """The score is minus the Shannon entropy of the posteriors."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        return -compute_entropy(signals.logits)
