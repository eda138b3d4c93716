"""Drawing models, or whole clusters of them, anew: what the statistics over models are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = Sequence[object] | NDArray[np.generic]

FEWEST_CLUSTERS = 5
"""Fewest clusters that can be resampled: of fewer there are too few ways to draw. Models are drawn then."""

FEWEST_RESAMPLED = 15
"""Fewest models that are resampled one by one; of fewer, intervals come from formulas."""

_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Drawn:
    """Values of a statistic over resamples; ``clusters`` is None if records were drawn."""

    values: Floats
    clusters: int | None

    def interval(self, level: float) -> tuple[float, float, int | None]:
        """The percentiles' ends, and how many clusters were drawn."""
        if len(self.values) == 0:
            return np.nan, np.nan, self.clusters
        tail = 100 * (1 - level) / 2
        low, high = np.percentile(self.values, [tail, 100 - tail])
        return float(low), float(high), self.clusters

    def beyond_zero(self) -> float:
        """Two-sided p-value of "it is zero": twice the smaller share of resamples on one side of zero."""
        smaller = min(int((self.values <= 0).sum()), int((self.values >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(self.values) + 1))


def bootstrap(
    statistic: Callable[[Floats], Floats], n: int, clusters: NDArray[np.object_] | None, resamples: int, seed: int
) -> Drawn:
    """A statistic over resamples of clusters, if there are enough of them, else of records.

    Args:
        statistic: From weights B×N, how often each record was drawn, to B values.
        n: Records.
        clusters: N labels.
        resamples: How many.
        seed: Decides.
    """
    random = np.random.default_rng([seed, 0])
    cluster_of = codes(clusters, n)
    count = int(cluster_of.max()) + 1
    by_cluster = clusters is not None and FEWEST_CLUSTERS <= count < n
    drawn = count if by_cluster else n
    values = []
    step = max(_CHUNK // n, 1)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        times = random.multinomial(drawn, np.full(drawn, 1 / drawn), size=size).astype(np.float64)
        values.append(statistic(times[:, cluster_of] if by_cluster else times))
    together = np.concatenate(values)
    return Drawn(together[np.isfinite(together)], count if by_cluster else None)


def few(n: int, clusters: NDArray[np.object_] | None) -> bool:
    """Whether models are too few to be resampled one by one, and there are no clusters to resample."""
    by_cluster = clusters is not None and FEWEST_CLUSTERS <= int(codes(clusters, n).max()) + 1 < n
    return n < FEWEST_RESAMPLED and not by_cluster


def of_mean(
    values: Floats, clusters: NDArray[np.object_] | None, level: float, resamples: int, seed: int
) -> tuple[float, float, int | None, str]:
    """Ends of a mean's interval, how many clusters were drawn, and how."""
    if few(len(values), clusters):
        from scipy import stats

        error = float(values.std(ddof=1)) / np.sqrt(len(values))
        reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
        return float(values.mean()) - reach, float(values.mean()) + reach, None, "Student's interval"
    drawn = bootstrap(lambda weights: average(values, weights), len(values), clusters, resamples, seed)
    low, high, resampled = drawn.interval(level)
    return low, high, resampled, how(resampled, resamples)


def welch(first: Floats, second: Floats, level: float) -> tuple[float, float]:
    """Welch's interval of a difference of means."""
    from scipy import stats

    if np.ptp(first) == 0 and np.ptp(second) == 0:
        value = float(second.mean() - first.mean())
        return value, value
    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(level)
    return float(interval.low), float(interval.high)


def fisher(value: float, n: int, kind: str, level: float) -> tuple[float, float]:
    """Fisher's interval of a correlation over ``n`` models, less one for each stratum after the first."""
    from scipy import stats

    if n <= 3:
        return -1.0, 1.0
    error = np.sqrt((1 if kind == "pearson" else 1 + value**2 / 2) / (n - 3))
    middle = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    return float(np.tanh(middle - reach)), float(np.tanh(middle + reach))


def average(values: Floats, weights: Floats) -> Floats:
    """Weighted means, B."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def permuted(x: Floats, y: Floats, within: NDArray[np.int64], value: float, resamples: int, seed: int) -> float:
    """Share of permutations of ``y`` within strata whose correlation is as strong; the observed one counts too."""
    x, y = (values - stratum_means(values[None, :], np.ones((1, len(values))), within)[0] for values in (x, y))
    noise = np.random.default_rng([seed, 1]).random((resamples, len(x)))
    order = (noise + within).argsort(axis=1)  # one stratum after the other, each shuffled
    x = x[np.argsort(within, kind="stable")]
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    found = np.abs((y[order] * x).sum(axis=1) / scale)
    return float(((found >= abs(value) - 1e-12).sum() + 1) / (resamples + 1))


def complete(x: Floats, y: Floats, *labels: Labels | None) -> tuple[Floats, Floats, list[NDArray[np.object_] | None]]:
    """The pairs of which both values are there, and their labels."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    chosen = [None if values is None else objects(values)[kept] for values in labels]
    return x[kept], y[kept], chosen


def objects(values: Labels) -> NDArray[np.object_]:
    """Labels as text."""
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value) for value in values]
    return array


def codes(labels: NDArray[np.object_] | None, n: int) -> NDArray[np.int64]:
    """Labels as numbers from 0; all 0 where there are none."""
    if labels is None:
        return np.zeros(n, dtype=np.int64)
    return np.asarray(np.unique(labels.astype(str), return_inverse=True)[1], dtype=np.int64)


def scaled(values: Floats) -> Floats:
    """The same values from 0 to 1: correlations stay, and what counts as rounding has a scale."""
    spread = float(np.ptp(values))
    return np.asarray((values - values.min()) / spread) if spread > 0 else np.zeros(len(values))


def stratum_means(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted mean of each record's stratum, B×N, for values 1×N or B×N."""
    strata = np.eye(int(within.max()) + 1)[within]
    totals = weights @ strata
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(totals > 0, ((weights * values) @ strata) / totals, 0.0)
    return np.asarray(averages[:, within])


def ranks(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Mid-ranks of each record among those drawn of its stratum, as shares of their number, B×N."""
    found = np.zeros(weights.shape)
    for stratum in range(int(within.max()) + 1):
        inside = np.flatnonzero(within == stratum)
        order = inside[np.argsort(values[inside], kind="stable")]
        cumulative = np.cumsum(weights[:, order], axis=1)
        _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
        last = first + counts - 1
        up_to = cumulative[:, last]
        below = np.concatenate([np.zeros((len(weights), 1)), up_to[:, :-1]], axis=1)
        total = np.maximum(cumulative[:, -1:], 1)
        found[:, order] = np.repeat((below + up_to + 1) / 2 / total, counts, axis=1)
    return found


def pearson(x: Floats, y: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted correlation of values centred in their strata, B; NaN where one of them does not vary."""
    x = np.atleast_2d(x) - stratum_means(np.atleast_2d(x), weights, within)
    y = np.atleast_2d(y) - stratum_means(np.atleast_2d(y), weights, within)
    products = (weights * x * y).sum(axis=1)
    scale = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    varies = scale > 1e-20 * weights.sum(axis=1)  # else what is left is rounding
    return np.where(varies, np.clip(products / np.where(varies, scale, 1), -1, 1), np.nan)


def how(clusters: int | None, resamples: int) -> str:
    """What was resampled, for a caption."""
    return f"bootstrap over {f'{clusters} families' if clusters else 'models'} with {resamples:,} resamples"
