"""The difference of two AUCs of the same records."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics import roc
from securitynet.records import Direction, Measurement

METHOD = "paired DeLong, one worst record added to each group"


def measure_auc_difference(
    name: str,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    is_member: NDArray[np.bool_],
    *,
    level: float = 0.95,
) -> Measurement:
    """Compute the AUC of the second scores minus that of the first, with an interval for pairs.

    The variance is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) for two curves of the same records,
    which is 0 where the scores happen to agree or to separate. For each end, one member and one non-member are added
    that both scores rank in the opposite and least favourable way, so that an interval never claims to know what so
    few records cannot show; quantiles are Student's.

    Args:
        name: Name of the measurement.
        first: The first scores, N; higher means "more likely a member". Infinite scores are allowed.
        second: The second scores of the same records, N.
        is_member: Which of them are members, N.
        level: Confidence level.

    Raises:
        ValueError: If the lengths differ, a group is empty, or a score is NaN.
    """
    if not len(first) == len(second) == len(is_member):
        raise ValueError("both scores, and the membership, of the same records are needed")
    roc.check(first[is_member], first[~is_member])
    roc.check(second[is_member], second[~is_member])
    ranks = scipy.stats.rankdata(first), scipy.stats.rankdata(second)  # finite, whatever the scores are
    value = _place(*ranks, is_member)[0]
    low = min(_limit(*ranks, is_member, level), value)
    high = max(-_limit(*ranks[::-1], is_member, level), value)
    return Measurement(
        name=name,
        value=value,
        low=max(low, -1.0),
        high=min(high, 1.0),
        level=level,
        n=len(is_member),
        direction=Direction.LOWER,
        method=METHOD,
    )


def _limit(
    first: NDArray[np.float64], second: NDArray[np.float64], is_member: NDArray[np.bool_], level: float
) -> float:
    """The lower end of the second AUC minus the first, with the worst record of each group added."""
    best, worst = len(first) + 1.0, 0.0
    augmented = (
        np.append(first, [best, worst]),  # the added member leads, and the added non-member trails, by the first scores
        np.append(second, [worst, best]),
        np.append(is_member, [True, False]),
    )
    mean, variance, fewest = _place(*augmented)
    quantile = float(special.stdtrit(fewest - 1, (1 + level) / 2))
    return float(mean - quantile * variance**0.5)


def _place(
    first: NDArray[np.float64], second: NDArray[np.float64], is_member: NDArray[np.bool_]
) -> tuple[float, float, int]:
    """The difference of the AUCs, its variance, and the size of the smaller group, from the placements of the records.

    The placement of a member is the share of the non-members below it, and that of a non-member the share of the
    members above it; ties count one half.
    """
    shares = [(_below(s[is_member], s[~is_member]), _below(-s[~is_member], -s[is_member])) for s in (first, second)]
    (member_first, other_first), (member_second, other_second) = shares
    members, others = member_second - member_first, other_second - other_first
    spread = [float(values.var(ddof=1)) / len(values) if len(values) > 1 else 1.0 for values in (members, others)]
    return float(members.mean()), sum(spread), min(len(members), len(others))


def _below(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(others)
    left, right = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    shares: NDArray[np.float64] = (left + right) / (2 * len(others))
    return shares
