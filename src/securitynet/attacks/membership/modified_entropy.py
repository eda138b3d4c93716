"""Modified entropy: low for a confident correct posterior, high for a confident wrong one.

Song and Mittal, "Systematic evaluation of privacy risks of machine learning models" (2021), equation 8; SecurityNet,
section 3.2.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from typing_extensions import override

from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel


class ModifiedEntropy(ThresholdAttack):
    """The score is minus the modified entropy; the threshold is tuned on the records that the adversary knows."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        return -compute_modified_entropy(signals.logits, signals.labels)


def compute_modified_entropy(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute Mentr(F(x), y) = −(1 − F(x)_y) log F(x)_y − Σ_{i≠y} F(x)_i log(1 − F(x)_i).

    It is computed from logits in double precision: most posteriors of overfitted models round to 1 in float32, so all
    of them would tie.

    Args:
        logits: N×K, up to a constant per row, K at least 2.
        labels: True classes, N, each in [0, K).

    Returns:
        Modified entropies, N, non-negative, in nats.
    """
    rows = np.arange(len(labels))
    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    top = log_p.argmax(axis=1)
    others = log_p.copy()
    others[rows, top] = -np.inf
    # For the largest posterior p, 1 − p is computed as the sum of the others: a subtraction loses it when p is near 1.
    log_rest_of_top = logsumexp(others, axis=1)
    log_p[rows, top] = np.log1p(-np.exp(log_rest_of_top))
    p = np.exp(log_p)
    log_rest = np.log1p(-np.minimum(p, 0.5))  # all but the largest are at most one half
    log_rest[rows, top] = log_rest_of_top
    contributions = p * log_rest
    label_log_p, label_log_rest = log_p[rows, labels], log_rest[rows, labels]
    contributions[rows, labels] = np.exp(label_log_rest) * label_log_p
    return np.asarray(-contributions.sum(axis=1), dtype=np.float64)
