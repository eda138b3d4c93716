"""All measures of a membership attack, from its scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import roc
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.records import Measurement


def measure(
    scores: NDArray[np.float64],
    is_member: NDArray[np.bool_],
    *,
    threshold: float,
    held_out: NDArray[np.bool_],
    fprs: Sequence[float] = DEFAULT_FPRS,
    level: float = 0.95,
    seed: int = 0,
) -> list[Measurement]:
    """AUC, TPR at each FPR, and balanced accuracy.

    Args:
        scores: N, higher meaning "more likely a member".
        is_member: N.
        threshold: At which the adversary calls a record a member.
        held_out: N; records that did not tune the threshold. Balanced accuracy is judged on these alone; AUC and TPR at
            FPR use no tuned threshold and are judged on all.
        fprs: Bounds for TPR at FPR.
        level: Confidence level of the intervals.
        seed: Of the bootstraps.

    Raises:
        ValueError: If a group is empty or a score is NaN.
    """
    members, non_members = scores[is_member], scores[~is_member]
    return [
        roc.auc(members, non_members, level=level),
        roc.balanced_accuracy(
            scores[is_member & held_out], scores[~is_member & held_out], threshold, level=level, seed=seed
        ),
        *(roc.tpr_at_fpr(members, non_members, fpr, level=level, seed=seed) for fpr in fprs),
    ]
