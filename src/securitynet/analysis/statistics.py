"""Statistics over models: correlations, differences and groups, with intervals, tests, and clusters respected.

Models of one architecture family are not independent draws: a table with forty ResNets and one AlexNet carries less
information than 41 independent models. Where ``clusters`` are given, whole clusters are left out one by one, and
intervals widen accordingly.

A bootstrap makes intervals that are too narrow where models or families are few: of six families, those that should
hold the truth 95 times in a hundred held it 89 times. Intervals are therefore Student's with the jackknife's error (of
a mean it is the usual one), Welch's (of a difference of means), and the widest ends of the jackknife's, Fisher's and
the bootstrap's (of a correlation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis import resampling
from securitynet.analysis.resampling import Floats, Labels

RESAMPLES = 2000
BOOTSTRAP = 600
"""Resamples behind the bootstrap's interval of a correlation."""
MOST_BOOTSTRAPPED = 200
"""Most models for which the bootstrap's interval of a correlation is computed; with more, skewness matters less."""
FEWEST = 4
"""Fewest pairs for a correlation; three points almost always lie close to a line."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: Point estimate; NaN if it can't be computed.
        low: Lower end.
        high: Upper end.
        p: Two-sided p-value of "it is zero" (or "there is no difference"), None if no test was made.
        n: Records behind it.
        clusters: Clusters that were left out one by one; None if records were.
        method: How it was computed, for a caption.
    """

    value: float
    low: float
    high: float
    p: float | None
    n: int
    clusters: int | None
    method: str

    @property
    def resolved(self) -> bool:
        """Whether the value could be computed."""
        return bool(np.isfinite(self.value))


def estimate_correlation(
    x: Floats,
    y: Floats,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
    clusters: Labels | None = None,
    strata: Labels | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Correlation of two quantities over models.

    Pairs with a missing value are left out. The interval is the jackknife's on the scale of Fisher's z and, where no
    clusters are left out, it is extended to the ends of Fisher's (for ranks with the variance of Bonett and Wright,
    2000) and of the bootstrap's (BCa, up to `MOST_BOOTSTRAPPED` models), whichever lie further out: each alone is too
    narrow for some kind of quantities. The
    p-value comes from permutations of ``y`` (within strata), and is then never below one in their number; where
    clusters are left out, which permutations of models would ignore, it belongs to the interval.

    Args:
        x: N values.
        y: N values.
        kind: Of values, or of their ranks.
        clusters: N labels of what is left out as a whole, such as architecture families.
        strata: N labels within which values are centred (ranks: taken), such as datasets: the correlation that is left
            when differences between strata are taken away.
        level: Of the interval.
        resamples: Of the permutation test.
        seed: Determines them.
    """
    x, y, (cluster_of, stratum_of) = resampling.complete(x, y, clusters, strata)
    n = len(x)
    nothing = Estimate(np.nan, np.nan, np.nan, None, n, None, f"fewer than {FEWEST} models")
    if n < FEWEST:
        return nothing
    within = resampling.number_labels(stratum_of, n)
    x, y = resampling.scale_values(x), resampling.scale_values(y)

    def statistic(weights: Floats) -> Floats:
        if kind == "pearson":
            return resampling.correlate_in_strata(x, y, weights, within)
        return resampling.correlate_in_strata(
            resampling.rank_in_strata(x, weights, within),
            resampling.rank_in_strata(y, weights, within),
            weights,
            within,
        )

    everything = np.ones((1, n))
    value = float(statistic(everything)[0])
    if not np.isfinite(value):
        return Estimate(np.nan, np.nan, np.nan, None, n, None, "a quantity that does not vary")
    name = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}[kind]
    freedom = n - int(within.max())

    def to_z(weights: Floats) -> Floats:
        return resampling.transform_to_z(statistic(weights), n, kind)

    left_out = resampling.jackknife(to_z, n, cluster_of)
    low, high = (float(np.tanh(end)) for end in left_out.interval(level))
    how = left_out.how
    if left_out.clusters:
        p = left_out.beyond_zero()
    else:
        a, b = (x, y) if kind == "pearson" else (resampling.rank_in_strata(v, everything, within)[0] for v in (x, y))
        p = resampling.permute_correlation(a, b, within, value, resamples, seed)
        ends = [resampling.compute_fisher_interval(value, freedom, kind, level)]
        how = f"{how} or Fisher's interval, the wider one"
        if n <= MOST_BOOTSTRAPPED:
            extended = resampling.compute_bca_interval(to_z, n, level, BOOTSTRAP, seed)
            ends += [] if extended is None else [(float(np.tanh(extended[0])), float(np.tanh(extended[1])))]
            how = f"{left_out.how}, Fisher's or the bootstrap's (BCa) interval, the widest ends"
        low, high = min(low, *(end[0] for end in ends)), max(high, *(end[1] for end in ends))
    return Estimate(value, min(low, value), max(high, value), p, n, left_out.clusters, f"{name}, {how}")


def estimate_mean(
    values: Floats,
    *,
    clusters: Labels | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Estimate:
    """Mean over models, with Student's interval.

    Args:
        values: N values, NaN where missing.
        clusters: N labels of what is left out as a whole.
        bounds: The least and the largest possible mean, such as 0 and 1 for shares; the interval is cut there.
        level: Confidence level, in (0, 1).
    """
    present = np.isfinite(values)
    values = values[present]
    cluster_of = None if clusters is None else resampling.convert_to_objects(clusters)[present]
    if len(values) < 2:
        value = float(values.mean()) if len(values) else np.nan
        return Estimate(value, np.nan, np.nan, None, len(values), None, "one model" if len(values) else "no model")
    jackknife = resampling.jackknife(
        lambda weights: resampling.average_weighted(values, weights), len(values), cluster_of, [np.isfinite(values)]
    )
    low, high = jackknife.interval(level)
    low, high = max(min(low, jackknife.value), bounds[0]), min(max(high, jackknife.value), bounds[1])
    method = f"mean, Student's interval, {jackknife.how}"
    return Estimate(jackknife.value, low, high, None, len(values), jackknife.clusters, method)


def _bound_equals(value: float, units: int, level: float) -> tuple[float, float]:
    """Ends for the mean of differences that are all equal, from which no error can be computed.

    Of what is at most ±1, as differences of shares are, a part of which none of the units is may be anything: with so
    many units it is at most 1 − α^(1/units), α being half of what the level leaves (Clopper and Pearson).

    Args:
        value: The differences.
        units: How many there are.
        level: Confidence level, in (0, 1).
    """
    if abs(value) > 1:
        return -np.inf, np.inf
    unseen = 1 - ((1 - level) / 2) ** (1 / units)
    return value - unseen * (1 + value), value + unseen * (1 - value)


def estimate_paired_difference(
    first: Floats,
    second: Floats,
    *,
    clusters: Labels | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of ``second - first`` over models that have both, with a test by flipping signs (of clusters).

    Args:
        first: N values, NaN where missing.
        second: N values of the same models.
        clusters: N labels of what is left out as a whole.
        level: Confidence level, in (0, 1).
        resamples: Number of sign flips for the test.
        seed: Determines them.
    """
    a, b, (cluster_of, _) = resampling.complete(first, second, clusters, None)
    change = b - a
    if len(change) < 2:
        value = float(change.mean()) if len(change) else np.nan
        return Estimate(value, np.nan, np.nan, None, len(change), None, "fewer than two pairs")
    jackknife = resampling.jackknife(
        lambda weights: resampling.average_weighted(change, weights), len(change), cluster_of, [np.isfinite(change)]
    )
    value = float(change.mean())
    low, high = jackknife.interval(level) if np.ptp(change) > 1e-12 else _bound_equals(value, jackknife.units, level)
    codes = resampling.number_labels(cluster_of, len(change)) if jackknife.clusters else np.arange(len(change))
    signs = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], (resamples, codes.max() + 1))
    flipped = np.abs((signs[:, codes] * change).mean(axis=1)) >= abs(value) - 1e-12
    p = float((flipped.sum() + 1) / (resamples + 1))
    method = f"mean of paired differences, Student's interval, {jackknife.how}"
    return Estimate(value, min(low, value), max(high, value), p, len(change), jackknife.clusters, method)


def group_difference(
    first: Floats,
    second: Floats,
    *,
    clusters: tuple[Labels, Labels] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Difference of means of two groups of models, ``second - first``.

    Interval and p-value are Welch's. Where the clusters of both groups are given, whole clusters are left out instead,
    those of both groups together, since a cluster may have models in both.

    Args:
        first: Values of a group.
        second: Of the other.
        clusters: Labels of each group's models.
        level: Of the interval.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    finite = np.isfinite(first), np.isfinite(second)
    labels = None
    if clusters is not None:
        labels = np.concatenate(
            [resampling.convert_to_objects(names)[keep] for names, keep in zip(clusters, finite, strict=True)]
        )
    first, second = first[finite[0]], second[finite[1]]
    n = len(first) + len(second)
    if min(len(first), len(second)) < 2:
        return Estimate(np.nan, np.nan, np.nan, None, n, None, "a group of fewer than two models")
    value = float(second.mean() - first.mean())
    together = np.concatenate([first, second])
    in_second = np.arange(n) >= len(first)

    def statistic(weights: Floats) -> Floats:
        halves = [weights * ~in_second, weights * in_second]
        with np.errstate(invalid="ignore"):  # a group of which no cluster was drawn
            return np.asarray(
                resampling.average_weighted(together, halves[1]) - resampling.average_weighted(together, halves[0])
            )

    of_both = (
        labels is not None
        and min(len(set(labels[~in_second])), len(set(labels[in_second]))) >= resampling.FEWEST_CLUSTERS
    )
    if of_both:
        jackknife = resampling.jackknife(statistic, n, labels, [~in_second, in_second])
        if jackknife.clusters:
            low, high = jackknife.interval(level)
            method = f"difference of means, {jackknife.how}"
            return Estimate(
                value, min(low, value), max(high, value), jackknife.beyond_zero(), n, jackknife.clusters, method
            )
    low, high, p = resampling.compute_welch_interval(first, second, level)
    return Estimate(value, min(low, value), max(high, value), p, n, None, "difference of means, Welch's interval")


def rank_groups(
    values: Floats,
    groups: Labels,
    *,
    clusters: Labels | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Kruskal and Wallis' H over groups, and its p-value by permutation of the groups' names.

    Where all models of a cluster are of one group, as those of an architecture family are of one venue, names are
    permuted between clusters: forty models of one paper are one publication, not forty.

    Args:
        values: N.
        groups: N names, of two groups or more.
        clusters: N labels.
        resamples: Permutations.
        seed: Determines them.

    Raises:
        ValueError: If there is one group only.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    codes = resampling.number_labels(resampling.convert_to_objects(groups), len(values))
    count = int(codes.max()) + 1
    if count < 2:
        raise ValueError("one group can't be compared with others")
    ranks = stats.rankdata(values)

    def spread(of: NDArray[np.int64]) -> float:
        sizes = np.bincount(of, minlength=count)
        sums = np.bincount(of, weights=ranks, minlength=count)
        return float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum())

    units = np.arange(len(values))
    if clusters is not None:
        of_cluster = resampling.number_labels(resampling.convert_to_objects(clusters), len(values))
        pairs = set(zip(of_cluster.tolist(), codes.tolist(), strict=True))
        if len(pairs) == int(of_cluster.max()) + 1 >= resampling.FEWEST_CLUSTERS:
            units = of_cluster
    name_of = np.zeros(int(units.max()) + 1, dtype=np.int64)
    name_of[units] = codes
    random = np.random.default_rng([seed, 1])
    seen = spread(codes)
    beyond = sum(spread(random.permutation(name_of)[units]) >= seen * (1 - 1e-12) for _ in range(resamples))
    statistic = stats.kruskal(*(values[codes == code] for code in range(count))).statistic
    return float(statistic), (beyond + 1) / (resamples + 1)


def adjust_p_values(p_values: Sequence[float | None], method: Literal["holm", "fdr_bh"] = "holm") -> list[float | None]:
    """P-values corrected for their number, after Holm (any error) or Benjamini and Hochberg (share of errors)."""
    from statsmodels.stats.multitest import multipletests

    p_values = [None if p is None or p != p else p for p in p_values]  # a frame's column holds NaN for None
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    corrected = iter(float(p) for p in multipletests(known, method=method)[1])
    return [None if p is None else next(corrected) for p in p_values]
