"""ROC analysis of membership scores: AUC, TPR at low FPR, balanced accuracy, each with an interval.

A *higher* score means "more likely a member". Members are the positives.

Ties: no threshold separates two records with the same score. The AUC counts a tie as one half. TPR at a FPR uses the
lowest threshold whose FPR does not exceed the bound, so a block of ties is included as a whole or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics import rates
from securitynet.metrics.former_names import forward_names
from securitynet.records import Direction, Measurement

Scores = NDArray[np.float64]

AUC_METHOD = "Beta quantiles of the weighted AUC, one worst record added to each group"
TPR_METHOD = "order statistics of the non-members, mixed with Clopper–Pearson"

_NEGLIGIBLE = 1e-6
_MOST_PARTS = 64


@dataclass(frozen=True, eq=False)
class Curve:
    """An ROC curve: both rates rise from 0 to 1 as the threshold falls.

    Attributes:
        fpr: False-positive rates, one per distinct score, with 0 before them.
        tpr: True-positive rates at the same thresholds.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


def check(members: Scores, non_members: Scores) -> None:
    """Raise ``ValueError`` unless both groups have scores and none is NaN."""
    if len(members) == 0 or len(non_members) == 0:
        raise ValueError("scores of both members and non-members are needed")
    if np.isnan(members).any() or np.isnan(non_members).any():
        raise ValueError("a score is NaN")


def count_share(scores: Scores, thresholds: Scores) -> NDArray[np.float64]:
    """Compute the share of the scores that reach each threshold.

    Counts are divided once: 1 minus a share would put 4 of 400 above 0.01.

    Args:
        scores: N, in any order.
        thresholds: M, in any order.

    Returns:
        M shares in [0, 1].
    """
    count = len(scores)
    shares: NDArray[np.float64] = (count - np.searchsorted(np.sort(scores), thresholds, side="left")) / count
    return shares


def compute_curve(members: Scores, non_members: Scores) -> Curve:
    """Compute the ROC curve at every distinct score."""
    check(members, non_members)
    thresholds = np.unique(np.concatenate([members, non_members]))[::-1]
    return Curve(
        fpr=np.concatenate([[0.0], count_share(non_members, thresholds)]),
        tpr=np.concatenate([[0.0], count_share(members, thresholds)]),
    )


def compute_auc(members: Scores, non_members: Scores) -> float:
    """Return the probability that a random member scores above a random non-member; ties count one half."""
    ordered, others = np.sort(members), np.sort(non_members)
    below = sum(int(np.searchsorted(others, ordered, side=side).sum()) for side in ("left", "right"))
    return below / 2 / (len(members) * len(non_members))


def measure_auc(members: Scores, non_members: Scores, *, level: float = 0.95, name: str = "auc") -> Measurement:
    """Compute the AUC with an interval that is valid for ties, constant scores and perfect separation.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        level: Confidence level.
        name: Name of the measurement.
    """
    check(members, non_members)
    value = compute_auc(members, non_members)
    low, high = compute_auc_limits(members, non_members, level)
    return Measurement(
        name=name,
        value=value,
        low=max(0.0, min(low, value)),
        high=min(1.0, max(high, value)),
        level=level,
        n=len(members) + len(non_members),
        direction=Direction.LOWER,
        method=AUC_METHOD,
    )


def compute_auc_limits(members: Scores, non_members: Scores, level: float) -> tuple[float, float]:
    """Compute the interval of an AUC, for scores of any distribution and groups of any size.

    DeLong's variance is that of the observed scores, and 0 if these happen to be separated or all equal; the interval
    then ignores everything that the sample did not show. Here, for the lower end, one member below all scores and one
    non-member above them are added, and the records of each group get random weights that sum to 1, uniformly
    distributed (Dirichlet); for the upper end, the two lie the other way. This extends to two samples what Clopper and
    Pearson's limits are for one, and those of Learned-Miller and Thomas (2019) for bounded values. The ends are
    quantiles of the weighted AUC, approximated by the Beta distribution with its exact mean and variance. For many
    records, the variance approaches DeLong's (Biometrics 44, 1988).

    Args:
        members: Scores, M.
        non_members: Scores, N.
        level: Confidence level.

    Returns:
        Lower and upper end.
    """
    m, n = len(members), len(non_members)
    ordered, others = np.sort(non_members), np.sort(members)
    left, right = (np.searchsorted(ordered, members, side=side) for side in ("left", "right"))
    # For each member the non-members below it, for each non-member the members above it; a tie counts one half.
    below = (left + right) / 2
    first, last = (np.searchsorted(others, non_members, side=side) for side in ("left", "right"))
    above = m - (first + last) / 2
    ties, tail = float((right - left).sum()), (1 - level) / 2
    return _auc_limit(below, above, ties, tail), 1 - _auc_limit(n - below, m - above, ties, tail)


def _auc_limit(below: Scores, above: Scores, ties: float, tail: float) -> float:
    """Compute the lower limit from the number of records of the other group that each record is ranked above."""
    won = float(below.sum())
    m, n = len(below) + 1, len(above) + 1
    mean = won / (m * n)
    # E[w_i·w_k] = (1 + [i = k]) / (M(M + 1)) for uniform weights; the square of a tie's one half is a quarter.
    squares = won**2 + float((below**2).sum()) + float((above**2).sum()) + won - ties / 4
    variance = squares / (m * (m + 1) * n * (n + 1)) - mean**2
    return float(rates.compute_beta_quantile(mean, variance, tail))


def count_allowed(fpr: float, n: int) -> int:
    """Return how many of n non-members a threshold may flag so that its expected FPR is at most ``fpr``; -1 if none.

    A threshold at the j-th highest of n non-members flags j - 1 of them, and in expectation a share of j / (n + 1) of
    future ones. With j at most fpr·(n + 1) this is within the bound; flagging a share of fpr of the n would exceed it.
    """
    return math.floor(fpr * (n + 1) + 1e-9) - 1


def resolves(n: int, fpr: float, level: float = 0.95) -> bool:
    """Return whether n non-members resolve a FPR: about 3.7 / fpr are needed at a level of 0.95.

    With fewer, it is not unlikely that none of them scores above the threshold with this FPR. However many members then
    lie above the highest non-member, the threshold may lie above those as well.

    Args:
        n: Number of non-members.
        fpr: False-positive rate, in (0, 1).
        level: Confidence level.
    """
    return n >= rates.count_draws(fpr, level)


def find_lowest_resolved(n: int, level: float = 0.95) -> float:
    """Return the lowest FPR that n non-members resolve, about 3.7 / n at a level of 0.95; see `resolves`.

    Args:
        n: Number of non-members.
        level: Confidence level.
    """
    return -math.expm1(math.log((1 - level) / 2) / n)


def measure_tpr_at_fpr(
    members: Scores, non_members: Scores, fpr: float, *, level: float = 0.95, name: str | None = None
) -> Measurement:
    """Compute the TPR at the lowest threshold whose FPR is at most ``fpr``.

    This is the measure of Carlini et al., "Membership inference attacks from first principles" (2022), section 3. A
    record counts as flagged if it scores above the (k + 1)-th highest non-member, with k from `count_allowed`.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        fpr: The bound, in (0, 1).
        level: Confidence level.
        name: Name of the measurement; ``tpr@fpr=...`` by default.

    Returns:
        A measurement whose value is None if there are too few non-members to resolve the FPR; see `resolves`.
    """
    check(members, non_members)
    if not 0 < fpr < 1:
        raise ValueError("the FPR must lie between 0 and 1")
    name = name or f"tpr@fpr={fpr:g}"
    m, n = len(members), len(non_members)
    if not resolves(n, fpr, level):
        return Measurement(
            name=name,
            value=None,
            level=level,
            n=m + n,
            direction=Direction.LOWER,
            method="none",
            note=f"not resolvable: a FPR of {fpr:g} takes {rates.count_draws(fpr, level):,} non-members, "
            f"there are {n:,}",
        )
    threshold = np.sort(non_members)[n - 1 - count_allowed(fpr, n)]
    value = int((members > threshold).sum()) / m
    low, high = compute_tpr_limits(members, non_members, fpr, level)
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=TPR_METHOD,
    )


def compute_tpr_limits(members: Scores, non_members: Scores, fpr: float, level: float) -> tuple[float, float]:
    """Compute the interval of a TPR at a FPR, which covers the uncertainty of the threshold and of the share above it.

    Of n non-members, a binomial number K scores above the threshold with this FPR, so the threshold lies between the
    K-th highest and the next. At each of these, the share of members above has Clopper and Pearson's confidence
    distribution, whose quantiles are its exact limits. The ends are quantiles of the mixture of these Beta
    distributions over K: of those at the K-th for the lower end, and at the next one for the upper end.

    Args:
        members: Scores, M.
        non_members: Scores, N.
        fpr: In (0, 1).
        level: Confidence level.

    Returns:
        Lower and upper end.
    """
    m, tail = len(members), (1 - level) / 2
    ascending = np.sort(members)
    descending = np.concatenate([[np.inf], np.sort(non_members)[::-1], [-np.inf]])
    fewest, most, shares = _count_exceedances(len(non_members), fpr)
    above_high = m - np.searchsorted(ascending, descending[fewest], side="right")
    above_low = m - np.searchsorted(ascending, descending[most + 1], side="right")
    return (
        _mixture_quantile(above_high, m - above_high + 1, shares, tail),
        1 - _mixture_quantile(m - above_low, above_low + 1, shares, tail),
    )


@lru_cache(maxsize=256)
def _count_exceedances(n: int, fpr: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Scores]:
    """Return ranges of the number of n non-members above the threshold with this FPR, and their probabilities.

    They are the fewest and the most of each range, and the probability of the range; the arrays must not be changed.
    """
    # By special functions, since SciPy's statistics are slow to import.
    reach = 40 * (1 + math.sqrt(n * fpr * (1 - fpr)))
    counts = np.arange(max(0, math.floor(n * fpr - reach)), min(n, math.ceil(n * fpr + reach)) + 1, dtype=np.int64)
    first, last = (
        int(np.argmax(reached))
        for reached in (
            special.bdtr(counts, n, fpr) >= _NEGLIGIBLE,
            special.bdtrc(counts, n, fpr) <= _NEGLIGIBLE,
        )
    )
    counts = counts[first : last + 1]
    logs = special.xlogy(counts, fpr) + special.xlog1py(n - counts, -fpr)
    weights = np.exp(logs - special.betaln(counts + 1, n - counts + 1) - math.log(n + 1))
    # Neighbouring K are merged, at the end that makes the interval wider.
    group = ((np.cumsum(weights) - weights / 2) * _MOST_PARTS).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts[1:] - 1, len(counts) - 1)
    return counts[starts], counts[ends], np.add.reduceat(weights, starts)


def _mixture_quantile(a: NDArray[np.int64], b: NDArray[np.int64], weights: Scores, share: float) -> float:
    """Compute the quantile of a mixture of Beta distributions; a component with ``a`` = 0 lies at 0."""
    at_zero = float(weights[a == 0].sum())
    if at_zero >= share:
        return 0.0
    a, b, weights = a[a > 0], b[a > 0], weights[a > 0]

    low, high = 0.0, 1.0
    for _ in range(50):  # by halves, since SciPy's root finders are slow to import
        middle = (low + high) / 2
        if at_zero + float(weights @ special.betainc(a, b, middle)) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def measure_balanced_accuracy(
    members: Scores, non_members: Scores, threshold: float, *, level: float = 0.95, name: str = "balanced-accuracy"
) -> Measurement:
    """Compute the mean of true-positive and true-negative rate, with scores of at least ``threshold`` called members.

    The threshold must come from other records than these. For the interval see `rates.combine_rates`.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        threshold: The threshold.
        level: Confidence level.
        name: Name of the measurement.
    """
    check(members, non_members)
    m, n = len(members), len(non_members)
    hits, rejections = int((members >= threshold).sum()), int((non_members < threshold).sum())
    value, low, high = map(float, rates.combine_rates((hits, m), (rejections, n), (0.5, 0.5), level))
    return Measurement(
        name=name,
        value=value,
        low=max(0.0, low),
        high=min(1.0, high),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=rates.MOVER,
    )


def find_best_threshold(members: Scores, non_members: Scores) -> float:
    """Return the threshold with the highest balanced accuracy on these records; of several that tie, the middle one.

    It lies halfway between two neighbouring scores, so that it does not depend on the rounding of one score. Tune it on
    records that the adversary knows, and evaluate it on others.
    """
    check(members, non_members)
    distinct = np.unique(np.concatenate([members, non_members]))
    finite = distinct[np.isfinite(distinct)]
    if len(finite) == 0:
        return 0.0
    candidates = np.concatenate([[-np.inf], (finite[:-1] + finite[1:]) / 2, [np.inf]])
    hits = 1 - np.searchsorted(np.sort(members), candidates, side="left") / len(members)
    rejections = np.searchsorted(np.sort(non_members), candidates, side="left") / len(non_members)
    gains = hits + rejections
    ties = np.flatnonzero(gains >= gains.max() - 1e-12)
    return float(candidates[ties[len(ties) // 2]])


if not TYPE_CHECKING:  # checkers of types know the present names only
    __getattr__ = forward_names(
        __name__,
        {
            "auc": "measure_auc",
            "auc_value": "compute_auc",
            "auc_limits": "compute_auc_limits",
            "curve": "compute_curve",
            "tpr_at_fpr": "measure_tpr_at_fpr",
            "tpr_limits": "compute_tpr_limits",
            "balanced_accuracy": "measure_balanced_accuracy",
            "best_threshold": "find_best_threshold",
            "lowest_resolved": "find_lowest_resolved",
        },
    )
