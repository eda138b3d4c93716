"""Statistics over models: correlations, differences and groups, with intervals, tests, and clusters respected.

Models of one architecture family are no independent draws: a table with forty ResNets and one AlexNet says less than
41 models seem to. Where ``clusters`` are given, resampling draws whole clusters (Cameron, Gelbach and Miller, 2008),
and intervals get as wide as that makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = Sequence[object] | NDArray[np.generic]

RESAMPLES = 2000
FEWEST = 4
"""Fewest pairs for a correlation; with three a line is almost always found."""

FEWEST_CLUSTERS = 5
"""Fewest clusters that can be resampled: of fewer there are too few ways to draw. Models are drawn then."""

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: Point estimate; NaN if it can't be computed.
        low: Lower end.
        high: Upper end.
        p: Two-sided p-value of "it is zero" (or "there is no difference"), None if none was asked for.
        n: Records behind it.
        clusters: Clusters that were resampled; None if records were.
        method: How, for a caption.
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
        """Whether there is a number."""
        return bool(np.isfinite(self.value))


def correlation(
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

    Pairs with a missing value are left out. The interval is that of the bootstrap's percentiles. The p-value comes from
    permutations of ``y`` (within strata); where clusters are resampled, which permutations of models would ignore, from
    the share of the bootstrap beyond zero. It is never below one in the number of resamples.

    Args:
        x: N values.
        y: N values.
        kind: Of values, or of their ranks.
        clusters: N labels of what is resampled as a whole, such as architecture families.
        strata: N labels within which values are centred (ranks: taken), such as datasets: the correlation that is left
            when differences between strata are taken away.
        level: Of the interval.
        resamples: Of the bootstrap, and of the permutation test.
        seed: Decides them.
    """
    x, y, (cluster_of, stratum_of) = _complete(x, y, clusters, strata)
    n = len(x)
    nothing = Estimate(np.nan, np.nan, np.nan, None, n, None, f"fewer than {FEWEST} models")
    if n < FEWEST:
        return nothing
    within = _codes(stratum_of, n)
    x, y = _scaled(x), _scaled(y)

    def statistic(weights: Floats) -> Floats:
        if kind == "pearson":
            return _pearson(x, y, weights, within)
        return _pearson(_ranks(x, weights, within), _ranks(y, weights, within), weights, within)

    everything = np.ones((1, n))
    value = float(statistic(everything)[0])
    if not np.isfinite(value):
        return Estimate(np.nan, np.nan, np.nan, None, n, None, "a quantity that does not vary")
    drawn = _bootstrap(statistic, n, cluster_of, resamples, seed)
    low, high, resampled = drawn.interval(level)
    if resampled:
        p = drawn.beyond_zero()
    else:
        a, b = (x, y) if kind == "pearson" else (_ranks(v, everything, within)[0] for v in (x, y))
        p = _permuted(a, b, within, value, resamples, seed)
    name = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}[kind]
    return Estimate(value, min(low, value), max(high, value), p, n, resampled, f"{name}, {_how(resampled, resamples)}")


def mean(
    values: Floats,
    *,
    clusters: Labels | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over models, with the bootstrap's interval."""
    kept = np.isfinite(values)
    values = values[kept]
    cluster_of = None if clusters is None else np.asarray(clusters, dtype=object)[kept]
    if len(values) < 2:
        value = float(values.mean()) if len(values) else np.nan
        return Estimate(value, np.nan, np.nan, None, len(values), None, "one model" if len(values) else "no model")
    drawn = _bootstrap(lambda weights: _average(values, weights), len(values), cluster_of, resamples, seed)
    low, high, resampled = drawn.interval(level)
    value = float(values.mean())
    return Estimate(
        value, min(low, value), max(high, value), None, len(values), resampled, f"mean, {_how(resampled, resamples)}"
    )


def ratio_of_means(
    numerator: Floats,
    denominator: Floats,
    *,
    clusters: Labels | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of one quantity over the mean of another on the same models (SecurityNet, section 4.1)."""
    above, below, (cluster_of, _) = _complete(numerator, denominator, clusters, None)
    if len(above) == 0 or below.mean() == 0:
        return Estimate(np.nan, np.nan, np.nan, None, len(above), None, "no model")

    def statistic(weights: Floats) -> Floats:
        return np.asarray(_average(above, weights) / _average(below, weights))

    value = float(above.mean() / below.mean())
    low, high, resampled = _bootstrap(statistic, len(above), cluster_of, resamples, seed).interval(level)
    method = f"ratio of means, {_how(resampled, resamples)}"
    return Estimate(value, min(low, value), max(high, value), None, len(above), resampled, method)


def paired_difference(
    first: Floats,
    second: Floats,
    *,
    clusters: Labels | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of ``second - first`` over models that have both, with a test by flipping signs (of clusters)."""
    a, b, (cluster_of, _) = _complete(first, second, clusters, None)
    change = b - a
    if len(change) < 2:
        value = float(change.mean()) if len(change) else np.nan
        return Estimate(value, np.nan, np.nan, None, len(change), None, "fewer than two pairs")
    drawn = _bootstrap(lambda weights: _average(change, weights), len(change), cluster_of, resamples, seed)
    low, high, resampled = drawn.interval(level)
    value = float(change.mean())
    codes = _codes(cluster_of, len(change)) if resampled else np.arange(len(change))
    signs = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], (resamples, codes.max() + 1))
    flipped = np.abs((signs[:, codes] * change).mean(axis=1)) >= abs(value) - 1e-12
    p = float((flipped.sum() + 1) / (resamples + 1))
    method = f"mean of paired differences, {_how(resampled, resamples)}"
    return Estimate(value, min(low, value), max(high, value), p, len(change), resampled, method)


def group_difference(
    first: Floats,
    second: Floats,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Difference of means of two groups of models, ``second - first``, with a permutation test of the labels."""
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    n = len(first) + len(second)
    if min(len(first), len(second)) < 2:
        return Estimate(np.nan, np.nan, np.nan, None, n, None, "a group of fewer than two models")
    value = float(second.mean() - first.mean())
    random = np.random.default_rng([seed, 0])
    drawn = [group[random.integers(0, len(group), (resamples, len(group)))].mean(axis=1) for group in (first, second)]
    tail = 100 * (1 - level) / 2
    low, high = (float(end) for end in np.percentile(drawn[1] - drawn[0], [tail, 100 - tail]))
    together = np.concatenate([first, second])
    order = np.random.default_rng([seed, 1]).random((resamples, n)).argsort(axis=1)
    shuffled = together[order]
    differences = shuffled[:, len(first) :].mean(axis=1) - shuffled[:, : len(first)].mean(axis=1)
    p = float(((np.abs(differences) >= abs(value) - 1e-12).sum() + 1) / (resamples + 1))
    method = f"difference of means, bootstrap with {resamples:,} resamples"
    return Estimate(value, min(low, value), max(high, value), p, n, None, method)


def adjusted(p_values: Sequence[float | None], method: Literal["holm", "fdr_bh"] = "holm") -> list[float | None]:
    """P-values corrected for how many there are: Holm's (any one wrong), or Benjamini and Hochberg's (share wrong)."""
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    corrected = iter(float(p) for p in multipletests(known, method=method)[1])
    return [None if p is None else next(corrected) for p in p_values]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Values of a statistic over resamples; ``clusters`` is None if records were drawn."""

    values: Floats
    clusters: int | None

    def interval(self, level: float) -> tuple[float, float, int | None]:
        if len(self.values) == 0:
            return np.nan, np.nan, self.clusters
        tail = 100 * (1 - level) / 2
        low, high = np.percentile(self.values, [tail, 100 - tail])
        return float(low), float(high), self.clusters

    def beyond_zero(self) -> float:
        """Two-sided p-value of "it is zero": twice the smaller share of resamples on one side of zero."""
        smaller = min(int((self.values <= 0).sum()), int((self.values >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(self.values) + 1))


def _bootstrap(
    statistic: Callable[[Floats], Floats], n: int, clusters: NDArray[np.object_] | None, resamples: int, seed: int
) -> _Drawn:
    """A statistic over resamples of clusters, if there are enough of them, else of records.

    Args:
        statistic: From weights B×N, how often each record was drawn, to B values.
        n: Records.
        clusters: N labels.
        resamples: How many.
        seed: Decides.
    """
    random = np.random.default_rng([seed, 0])
    codes = _codes(clusters, n)
    count = int(codes.max()) + 1
    by_cluster = clusters is not None and FEWEST_CLUSTERS <= count < n
    drawn = count if by_cluster else n
    values = []
    step = max(_CHUNK // n, 1)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        times = random.multinomial(drawn, np.full(drawn, 1 / drawn), size=size).astype(np.float64)
        values.append(statistic(times[:, codes] if by_cluster else times))
    together = np.concatenate(values)
    return _Drawn(together[np.isfinite(together)], count if by_cluster else None)


def _average(values: Floats, weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))


def _permuted(x: Floats, y: Floats, within: NDArray[np.int64], value: float, resamples: int, seed: int) -> float:
    """Share of permutations of ``y`` within strata whose correlation is as strong; the observed one counts too."""
    x, y = (values - _stratum_means(values[None, :], np.ones((1, len(values))), within)[0] for values in (x, y))
    noise = np.random.default_rng([seed, 1]).random((resamples, len(x)))
    order = (noise + within).argsort(axis=1)  # one stratum after the other, each shuffled
    x = x[np.argsort(within, kind="stable")]
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    found = np.abs((y[order] * x).sum(axis=1) / scale)
    return float(((found >= abs(value) - 1e-12).sum() + 1) / (resamples + 1))


def _complete(x: Floats, y: Floats, *labels: Labels | None) -> tuple[Floats, Floats, list[NDArray[np.object_] | None]]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    chosen = [None if values is None else _objects(values)[kept] for values in labels]
    return x[kept], y[kept], chosen


def _objects(values: Labels) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value) for value in values]
    return array


def _codes(labels: NDArray[np.object_] | None, n: int) -> NDArray[np.int64]:
    if labels is None:
        return np.zeros(n, dtype=np.int64)
    return np.asarray(np.unique(labels.astype(str), return_inverse=True)[1], dtype=np.int64)


def _scaled(values: Floats) -> Floats:
    """The same values from 0 to 1: correlations stay, and what counts as rounding has a scale."""
    spread = float(np.ptp(values))
    return np.asarray((values - values.min()) / spread) if spread > 0 else np.zeros(len(values))


def _stratum_means(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted mean of each record's stratum, B×N, for values 1×N or B×N."""
    strata = np.eye(int(within.max()) + 1)[within]
    totals = weights @ strata
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(totals > 0, ((weights * values) @ strata) / totals, 0.0)
    return np.asarray(averages[:, within])


def _ranks(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Mid-ranks of each record among those drawn of its stratum, as shares of their number, B×N."""
    ranks = np.zeros(weights.shape)
    for stratum in range(int(within.max()) + 1):
        inside = np.flatnonzero(within == stratum)
        order = inside[np.argsort(values[inside], kind="stable")]
        cumulative = np.cumsum(weights[:, order], axis=1)
        _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
        last = first + counts - 1
        up_to = cumulative[:, last]
        below = np.concatenate([np.zeros((len(weights), 1)), up_to[:, :-1]], axis=1)
        total = np.maximum(cumulative[:, -1:], 1)
        ranks[:, order] = np.repeat((below + up_to + 1) / 2 / total, counts, axis=1)
    return ranks


def _pearson(x: Floats, y: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted correlation of values centred in their strata, B; NaN where one of them does not vary."""
    x = np.atleast_2d(x) - _stratum_means(np.atleast_2d(x), weights, within)
    y = np.atleast_2d(y) - _stratum_means(np.atleast_2d(y), weights, within)
    products = (weights * x * y).sum(axis=1)
    scale = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    varies = scale > 1e-20 * weights.sum(axis=1)  # else what is left is rounding
    return np.where(varies, np.clip(products / np.where(varies, scale, 1), -1, 1), np.nan)


def _how(clusters: int | None, resamples: int) -> str:
    return f"bootstrap over {f'{clusters} families' if clusters else 'models'} with {resamples:,} resamples"
