"""Statistics without single models or whole clusters of them: the basis of the statistics over models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = Sequence[object] | NDArray[np.generic]

FEWEST_CLUSTERS = 3
"""Fewest clusters that are left out one by one; of fewer, models are."""

_CHUNK = 2_000_000


@dataclass(frozen=True)
class Jackknife:
    """A statistic with its standard error.

    Attributes:
        value: Of all records.
        error: From the statistic without each unit in turn; infinite if it is undefined without one of them.
        units: How many units there are: clusters, or records.
        clusters: The number of clusters; None if the units are records.
        freedom: Degrees of freedom of Student's distribution.
    """

    value: float
    error: float
    units: int
    clusters: int | None
    freedom: float

    def interval(self, level: float) -> tuple[float, float]:
        """Student's interval."""
        from scipy import special

        reach = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.value - reach, self.value + reach

    def beyond_zero(self) -> float:
        """Two-sided p-value of "it is zero", from the same distribution."""
        from scipy import stats

        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def how(self) -> str:
        """How the error was computed, for a caption."""
        return f"jackknife over {self.units:,} {'families' if self.clusters else 'models'}"


def jackknife(
    statistic: Callable[[Floats], Floats],
    n: int,
    clusters: NDArray[np.object_] | None,
    means_of: Sequence[NDArray[np.bool_]] = (),
) -> Jackknife:
    """A statistic without each cluster in turn, if there are enough of them, else without each record.

    With the deviations taken from the statistic of all (CR3), Student's interval holds the truth where a bootstrap over
    few clusters, or clusters of very unequal sizes, does not (MacKinnon, Nielsen and Webb, Journal of Applied
    Econometrics 38, 2023).

    Args:
        statistic: From weights B×N, 0 for what is left out and else 1, to B values. It should be one whose
            distribution is not skewed, such as Fisher's z of a correlation and the logarithm of a ratio.
        n: Records.
        clusters: N labels.
        means_of: The groups of records whose means make up the statistic, N each, where it is made of means. Then a
            cluster that holds most of a group decides, and the degrees of freedom are one less than that group's
            effective number of clusters, (Σ size)² / Σ size² (after Carter, Schnepel and Steigerwald, Review of
            Economics and Statistics 99, 2017). Else they are one less than there are units.
    """
    unit_of = number_labels(clusters, n)
    count = int(unit_of.max()) + 1
    by_cluster = clusters is not None and FEWEST_CLUSTERS <= count < n
    if not by_cluster:
        unit_of, count = np.arange(n), n
    value = float(statistic(np.ones((1, n)))[0])
    parts = []
    step = max(_CHUNK // n, 1)
    for start in range(0, count, step):
        left_out = np.arange(start, min(start + step, count))
        parts.append(statistic((unit_of[None, :] != left_out[:, None]).astype(np.float64)))
    without = np.concatenate(parts)
    error = np.inf
    if np.isfinite(without).all():
        error = float(np.sqrt((count - 1) / count * ((without - value) ** 2).sum()))
    sizes = [np.bincount(unit_of[group], minlength=count).astype(np.float64) for group in means_of]
    effective = [float(size.sum() ** 2 / (size**2).sum()) for size in sizes]
    # A single unit has no spread: the floor keeps the quantile finite, though very large.
    freedom = max(min([count, *effective]) - 1, 0.5)
    return Jackknife(value, error, count, count if by_cluster else None, freedom)


def compute_bca_interval(
    statistic: Callable[[Floats], Floats], n: int, level: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval (Efron, J. Am. Stat. Assoc. 82, 1987).

    Alone it is too narrow for few records; where the distribution is skewed, it reaches further on the side where the
    jackknife's symmetric interval falls short.

    Args:
        statistic: From weights B×N to B values.
        n: Records.
        level: Confidence level, in (0, 1).
        resamples: Number of resamples.
        seed: Determines them.

    Returns:
        Lower and upper end; None if the statistic is undefined without one of the records.
    """
    from scipy import special

    draws = np.random.default_rng([seed, 2]).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
    drawn = statistic(draws)
    drawn = drawn[np.isfinite(drawn)]
    value = float(statistic(np.ones((1, n)))[0])
    without = statistic(1 - np.eye(n))
    if not np.isfinite(without).all() or len(drawn) < resamples / 2:
        return None
    pulls = without.mean() - without
    scale = float((pulls**2).sum())
    acceleration = 0.0 if scale == 0 else float((pulls**3).sum() / (6 * scale**1.5))
    below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
    bias = float(special.ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    ends = bias + special.ndtri([(1 - level) / 2, (1 + level) / 2])
    shares = special.ndtr(bias + ends / (1 - acceleration * ends))
    low, high = np.quantile(drawn, np.sort(shares))
    return float(low), float(high)


def compute_welch_interval(first: Floats, second: Floats, level: float) -> tuple[float, float, float | None]:
    """Welch's interval of a difference of means, and the p-value of Welch's test.

    Args:
        first: Values of the first group.
        second: Values of the second group.
        level: Confidence level, in (0, 1).

    Returns:
        Ends of the interval and the p-value, which is None where two groups without spread differ.
    """
    from scipy import stats

    value = float(second.mean() - first.mean())
    exact = 1e-12 * max(np.abs(first).max(), np.abs(second).max())  # what rounding leaves of equal values
    if max(np.ptp(first), np.ptp(second)) <= exact:
        return value, value, None if abs(value) > exact else 1.0
    test = stats.ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval(level)
    return float(interval.low), float(interval.high), float(test.pvalue)


def compute_fisher_interval(value: float, n: int, kind: str, level: float) -> tuple[float, float]:
    """Fisher's interval of a correlation over ``n`` models, less one for each stratum after the first.

    Args:
        value: The correlation.
        n: Number of models, minus one for each stratum after the first.
        kind: ``pearson`` or ``spearman``.
        level: Confidence level, in (0, 1).
    """
    from scipy import special

    if n <= 3:
        return -1.0, 1.0
    error = np.sqrt((1 if kind == "pearson" else 1 + value**2 / 2) / (n - 3))
    reach = float(special.ndtri((1 + level) / 2)) * error
    middle = float(transform_to_z(np.array(value), n, kind))
    return float(np.tanh(middle - reach)), float(np.tanh(middle + reach))


def transform_to_z(correlations: Floats, n: int, kind: str) -> Floats:
    """Fisher's z, finite for ranks that agree perfectly: those of few models often do where the truth is below 1.

    Ranks of n models differ from perfect agreement by 12 / (n³ - n) at least; half of that is allowed for.

    Args:
        correlations: B correlations.
        n: Number of models.
        kind: ``pearson`` or ``spearman``.
    """
    most = 1 - (1e-12 if kind == "pearson" else 6 / (n**3 - n))
    return np.asarray(np.arctanh(np.clip(correlations, -most, most)))


def average_weighted(values: Floats, weights: Floats) -> Floats:
    """Weighted means, B."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def permute_correlation(
    x: Floats, y: Floats, within: NDArray[np.int64], value: float, resamples: int, seed: int
) -> float:
    """Share of permutations of ``y`` within strata whose correlation is as strong; the observed one counts too.

    Args:
        x: N values.
        y: N values.
        within: Stratum of each record, from 0.
        value: The observed correlation.
        resamples: Number of permutations.
        seed: Determines them.
    """
    x, y = (values - average_strata(values[None, :], np.ones((1, len(values))), within)[0] for values in (x, y))
    noise = np.random.default_rng([seed, 1]).random((resamples, len(x)))
    order = (noise + within).argsort(axis=1)  # one stratum after the other, each shuffled
    x = x[np.argsort(within, kind="stable")]
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    correlations = np.abs((y[order] * x).sum(axis=1) / scale)
    return float(((correlations >= abs(value) - 1e-12).sum() + 1) / (resamples + 1))


def complete(x: Floats, y: Floats, *labels: Labels | None) -> tuple[Floats, Floats, list[NDArray[np.object_] | None]]:
    """The pairs with both values, and their labels.

    Args:
        x: N values, NaN where missing.
        y: N values, NaN where missing.
        labels: N labels each, or None.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    present = np.isfinite(x) & np.isfinite(y)
    chosen = [None if values is None else convert_to_objects(values)[present] for values in labels]
    return x[present], y[present], chosen


def convert_to_objects(values: Labels) -> NDArray[np.object_]:
    """Labels as text."""
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value) for value in values]
    return array


def number_labels(labels: NDArray[np.object_] | None, n: int) -> NDArray[np.int64]:
    """Labels as numbers from 0; all 0 where there are none."""
    if labels is None:
        return np.zeros(n, dtype=np.int64)
    return np.asarray(np.unique(labels.astype(str), return_inverse=True)[1], dtype=np.int64)


def scale_values(values: Floats) -> Floats:
    """The same values scaled to [0, 1]: correlations do not change, and rounding errors have a known scale."""
    spread = float(np.ptp(values))
    return np.asarray((values - values.min()) / spread) if spread > 0 else np.zeros(len(values))


def average_strata(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted mean of each record's stratum, B×N, for values 1×N or B×N.

    Args:
        values: 1×N or B×N.
        weights: B×N.
        within: Stratum of each record, from 0.
    """
    strata = np.eye(int(within.max()) + 1)[within]
    totals = weights @ strata
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = np.where(totals > 0, ((weights * values) @ strata) / totals, 0.0)
    return np.asarray(averages[:, within])


def rank_in_strata(values: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Mid-ranks of each record among those drawn of its stratum, as shares of their number, B×N.

    Args:
        values: N values.
        weights: How often each record is drawn, B×N.
        within: Stratum of each record, from 0.
    """
    result = np.zeros(weights.shape)
    for stratum in range(int(within.max()) + 1):
        inside = np.flatnonzero(within == stratum)
        order = inside[np.argsort(values[inside], kind="stable")]
        cumulative = np.cumsum(weights[:, order], axis=1)
        _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
        last = first + counts - 1
        up_to = cumulative[:, last]
        below = np.concatenate([np.zeros((len(weights), 1)), up_to[:, :-1]], axis=1)
        total = np.maximum(cumulative[:, -1:], 1)
        result[:, order] = np.repeat((below + up_to + 1) / 2 / total, counts, axis=1)
    return result


def correlate_in_strata(x: Floats, y: Floats, weights: Floats, within: NDArray[np.int64]) -> Floats:
    """Weighted correlation of values centred in their strata, B; NaN where one of them does not vary.

    Args:
        x: N or B×N values.
        y: N or B×N values.
        weights: B×N.
        within: Stratum of each record, from 0.
    """
    x = np.atleast_2d(x) - average_strata(np.atleast_2d(x), weights, within)
    y = np.atleast_2d(y) - average_strata(np.atleast_2d(y), weights, within)
    products = (weights * x * y).sum(axis=1)
    scale = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    varies = scale > 1e-20 * weights.sum(axis=1)  # otherwise only rounding errors are left
    return np.where(varies, np.clip(products / np.where(varies, scale, 1), -1, 1), np.nan)
