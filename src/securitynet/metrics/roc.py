"""ROC analysis of membership scores: AUC, TPR at low FPR, balanced accuracy, each with an interval.

A *higher* score means "more likely a member". Members are the positives.

Ties: two records with one score can't be told apart by any threshold. The AUC counts a tie as one half. TPR at a FPR
uses the lowest threshold whose FPR does not exceed the bound, so a block of ties is taken whole or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement

Scores = NDArray[np.float64]

RESAMPLES = 10_000
"""Bootstrap resamples. They are drawn from the exact resampling distributions, so many cost little."""


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


def curve(members: Scores, non_members: Scores) -> Curve:
    """The ROC curve at every distinct score."""
    check(members, non_members)
    thresholds = np.unique(np.concatenate([members, non_members]))[::-1]

    def share_at_least(scores: Scores) -> NDArray[np.float64]:
        ordered = np.sort(scores)
        return 1 - np.searchsorted(ordered, thresholds, side="left") / len(ordered)

    return Curve(
        fpr=np.concatenate([[0.0], share_at_least(non_members)]),
        tpr=np.concatenate([[0.0], share_at_least(members)]),
    )


def auc_value(members: Scores, non_members: Scores) -> float:
    """Probability that a random member scores above a random non-member, ties counting one half."""
    ranks = stats.rankdata(np.concatenate([members, non_members]))
    m, n = len(members), len(non_members)
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def auc(members: Scores, non_members: Scores, *, level: float = 0.95, name: str = "auc") -> Measurement:
    """AUC with DeLong's interval (Biometrics 44, 1988; computed from mid-ranks after Sun and Xu, 2014).

    At perfect separation DeLong's variance is 0; the interval is then bounded by the exact binomial one for the smaller
    group, and the method says so.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        level: Confidence level.
        name: Name of the measurement.
    """
    check(members, non_members)
    m, n = len(members), len(non_members)
    together = stats.rankdata(np.concatenate([members, non_members]))
    value = float((together[:m].sum() - m * (m + 1) / 2) / (m * n))
    # For each member the share of non-members below it, and for each non-member the share of members above it.
    above = (together[:m] - stats.rankdata(members)) / n
    below = 1 - (together[m:] - stats.rankdata(non_members)) / m
    variance = (above.var(ddof=1) / m if m > 1 else 0.25) + (below.var(ddof=1) / n if n > 1 else 0.25)
    half = float(stats.norm.ppf((1 + level) / 2) * math.sqrt(variance))
    low, high, method = value - half, value + half, "DeLong"
    if value in (0.0, 1.0):
        low, high = rates.clopper_pearson(round(value * min(m, n)), min(m, n), level)
        method = "DeLong; exact binomial bound at perfect separation"
    return Measurement(
        name=name,
        value=value,
        low=max(0.0, min(low, value)),
        high=min(1.0, max(high, value)),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=method,
    )


def tpr_at_fpr(
    members: Scores,
    non_members: Scores,
    fpr: float,
    *,
    level: float = 0.95,
    seed: int = 0,
    name: str | None = None,
) -> Measurement:
    """TPR at the lowest threshold whose FPR is at most ``fpr``.

    The measure of Carlini et al., "Membership inference attacks from first principles" (2022), section 3. With k =
    floor(fpr · n) false positives allowed among n non-members, a record counts as flagged if it scores above the
    (k+1)-th highest non-member.

    The interval is a stratified bootstrap: members and non-members are resampled separately. Both steps are drawn from
    their exact distributions: an order statistic of a resample has a beta-distributed rank, and the number of flagged
    members is then binomial. It is widened to the exact binomial interval at the observed threshold, because a
    bootstrap can't leave 0 or 1.

    Args:
        members: Scores of members.
        non_members: Scores of non-members.
        fpr: The bound, in (0, 1).
        level: Confidence level.
        seed: Of the bootstrap.
        name: Name of the measurement; ``tpr@fpr=...`` by default.

    Returns:
        A measurement whose value is None if ``fpr`` is below 1/n: n non-members can't resolve it.
    """
    check(members, non_members)
    name = name or f"tpr@fpr={fpr:g}"
    m, n = len(members), len(non_members)
    allowed = math.floor(fpr * n + 1e-9)
    if allowed == 0:
        return Measurement(
            name=name,
            value=None,
            level=level,
            n=m + n,
            direction=Direction.LOWER,
            method="none",
            note=f"not resolvable: {n} non-members resolve no FPR below 1/{n} = {1 / n:.2g}",
        )
    if allowed >= n:
        raise ValueError("the FPR must be below 1")
    descending = np.sort(non_members)[::-1]
    ascending = np.sort(members)

    def flagged(thresholds: Scores) -> NDArray[np.int64]:
        return m - np.searchsorted(ascending, thresholds, side="right")

    count = int(flagged(descending[[allowed]])[0])
    generator = np.random.default_rng(seed)
    ranks = np.floor(generator.beta(allowed + 1, n - allowed, RESAMPLES) * n).astype(np.int64)
    resampled = generator.binomial(m, flagged(descending[ranks.clip(max=n - 1)]) / m) / m
    low, high = rates.percentile_interval(resampled, level)
    exact_low, exact_high = rates.clopper_pearson(count, m, level)
    value = count / m
    return Measurement(
        name=name,
        value=value,
        low=min(low, exact_low, value),
        high=max(high, exact_high, value),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=f"stratified bootstrap, {RESAMPLES} resamples, widened to the exact binomial interval",
    )


def balanced_accuracy(
    members: Scores,
    non_members: Scores,
    threshold: float,
    *,
    level: float = 0.95,
    seed: int = 0,
    name: str = "balanced-accuracy",
) -> Measurement:
    """Mean of true-positive and true-negative rate when scores of at least ``threshold`` are called members.

    The threshold must come from other records than these. The interval is a stratified bootstrap (each count is
    binomial), widened to Newcombe's hybrid score interval where a rate of 0 or 1 leaves the bootstrap no spread.
    """
    check(members, non_members)
    m, n = len(members), len(non_members)
    hits, rejections = int((members >= threshold).sum()), int((non_members < threshold).sum())
    generator = np.random.default_rng(seed)
    resampled = (
        generator.binomial(m, hits / m, RESAMPLES) / m + generator.binomial(n, rejections / n, RESAMPLES) / n
    ) / 2
    low, high = rates.percentile_interval(resampled, level)
    value, wide_low, wide_high = rates.combine((hits, m), (rejections, n), (0.5, 0.5), level)
    return Measurement(
        name=name,
        value=value,
        low=max(0.0, min(low, wide_low, value)),
        high=min(1.0, max(high, wide_high, value)),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=f"stratified bootstrap, {RESAMPLES} resamples, widened to {rates.NEWCOMBE}",
    )


def best_threshold(members: Scores, non_members: Scores) -> float:
    """The threshold with the highest balanced accuracy on these records; the middle one of several that tie.

    It lies halfway between two neighbouring scores, so that it does not hang on the rounding of one record. Use it on
    records that the adversary knows; judge it on others.
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
