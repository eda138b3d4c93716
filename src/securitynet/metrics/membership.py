"""All metrics of a membership attack, from its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import epsilon, rates, roc
from securitynet.metrics.defaults import DEFAULT_DELTA, DEFAULT_FPRS
from securitynet.metrics.former_names import forward_names
from securitynet.records import Direction, Measurement


def measure_membership(
    scores: NDArray[np.float64],
    is_member: NDArray[np.bool_],
    *,
    threshold: float | NDArray[np.float64],
    held_out: NDArray[np.bool_],
    fprs: Sequence[float] = DEFAULT_FPRS,
    delta: float = DEFAULT_DELTA,
    level: float = 0.95,
    seed: int = 0,
) -> list[Measurement]:
    """Compute AUC, balanced accuracy, advantage, TPR at each FPR, and a lower bound on epsilon.

    Args:
        scores: Scores, N; higher means "more likely a member".
        is_member: True membership, N.
        threshold: Score from which on the adversary calls a record a member; one, or N (by class or by record).
        held_out: Whether each record was held out of tuning, N. Balanced accuracy, advantage and epsilon are computed
            on these alone; AUC and TPR at FPR use no tuned threshold and are computed on all records.
        fprs: Bounds for TPR at FPR.
        delta: Delta of the lower bound on epsilon.
        level: Confidence level of the intervals.
        seed: Seed of the random halves that the bound on epsilon may need.

    Raises:
        ValueError: If a group is empty or a score is NaN.
    """
    members, non_members = scores[is_member], scores[~is_member]
    # If each record has its own threshold, its distance from the threshold is compared with 0.
    above = scores - threshold if isinstance(threshold, np.ndarray) else scores
    cut = 0.0 if isinstance(threshold, np.ndarray) else threshold
    judged = above[is_member & held_out], above[~is_member & held_out]
    return [
        roc.measure_auc(members, non_members, level=level),
        roc.measure_balanced_accuracy(*judged, cut, level=level),
        measure_advantage(*judged, cut, level=level),
        *(roc.measure_tpr_at_fpr(members, non_members, fpr, level=level) for fpr in fprs),
        epsilon.measure_lower_bound(scores, is_member, tuning=~held_out, delta=delta, level=level, seed=seed),
    ]


def measure_advantage(
    members: roc.Scores, non_members: roc.Scores, threshold: float, *, level: float = 0.95, name: str = "advantage"
) -> Measurement:
    """Compute the membership advantage: TPR minus FPR with scores of at least ``threshold`` called members.

    Yeom et al., "Privacy risk in machine learning" (2018), definition 4. It is 0 for guessing and 1 for a perfect
    attack. The threshold must come from other records than these.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        threshold: The threshold.
        level: Confidence level.
        name: Name of the measurement.
    """
    roc.check(members, non_members)
    hits, false_alarms = int((members >= threshold).sum()), int((non_members >= threshold).sum())
    return rates.measure_difference(
        name, (hits, len(members)), (false_alarms, len(non_members)), direction=Direction.LOWER, level=level
    )


if not TYPE_CHECKING:  # checkers of types know the present names only
    __getattr__ = forward_names(
        __name__,
        {
            "measure": "measure_membership",
            "advantage": "measure_advantage",
        },
    )
