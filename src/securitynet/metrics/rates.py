"""Rates of successes, and differences, means and ratios of two such rates, with intervals.

All intervals are built from exact ones. Wilson's interval has the right coverage on average only: for rates near 0 or
1, where those of good models lie, its coverage can be as low as 84%, whatever the number of records.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from securitynet.metrics.former_names import forward_names
from securitynet.records import Direction, Measurement

CLOPPER_PEARSON = "Clopper–Pearson"
BOUNDED_MEAN = "Beta quantiles of the weighted mean, one worst record added"
MOVER = "MOVER with Clopper–Pearson limits"
MOVER_UNPAIRED = "MOVER, as if the records were others"

Floats = NDArray[np.float64]


def compute_clopper_pearson(successes: ArrayLike, n: ArrayLike, level: float) -> tuple[Floats, Floats]:
    """Compute the exact interval of a binomial rate; each side misses with probability at most (1 - level) / 2.

    Clopper and Pearson (Biometrika 26, 1934), as Beta quantiles. Counts need not be integers (Korn and Graubard, Survey
    Methodology 24, 1998).

    Args:
        successes: Counts, of any shape.
        n: Numbers of trials, at least one each.
        level: Confidence level.

    Returns:
        Lower and upper ends, of the shape of the counts.
    """
    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    tail = (1 - level) / 2
    failures = n - successes
    low = special.betaincinv(np.maximum(successes, 1e-12), failures + 1, tail)
    high = special.betaincinv(successes + 1, np.maximum(failures, 1e-12), 1 - tail)
    return np.where(successes > 0, low, 0.0), np.where(failures > 0, high, 1.0)


def rate(name: str, successes: int, n: int, *, direction: Direction, level: float = 0.95) -> Measurement:
    """Compute a binomial rate with its exact interval.

    Args:
        name: Name of the measurement.
        successes: Number of successes.
        n: Number of trials.
        direction: Which direction is good for the owner.
        level: Confidence level.
    """
    value = successes / n
    low, high = map(float, compute_clopper_pearson(successes, n, level))
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=n,
        direction=direction,
        method=CLOPPER_PEARSON,
    )


def combine_rates(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike], weights: tuple[float, float], level: float
) -> tuple[Floats, Floats, Floats]:
    """Compute value and interval of ``w1·p1 + w2·p2`` for two independent binomial rates.

    The method of variance estimates recovery (MOVER; Zou and Donner, Statistics in Medicine 27, 2008; for a difference
    Newcombe's method 10, ibid. 17, 1998): the distances of each rate to its limits are added in quadrature. The limits
    are the exact ones, where Newcombe took Wilson's.

    Args:
        first: (successes, n) of the first rate.
        second: (successes, n) of the second rate.
        weights: w1 and w2; (1, -1) for a difference, (0.5, 0.5) for a mean.
        level: Confidence level.

    Returns:
        (value, low, high).
    """
    value, below, above = np.zeros(()), np.zeros(()), np.zeros(())
    for (successes, n), weight in zip((first, second), weights, strict=True):
        p = np.asarray(successes) / np.asarray(n)
        low, high = compute_clopper_pearson(successes, n, level)
        to_low, to_high = weight * (p - low), weight * (high - p)
        if weight < 0:
            to_low, to_high = -to_high, -to_low
        value = value + weight * p
        below = below + to_low**2
        above = above + to_high**2
    return value, value - np.sqrt(below), value + np.sqrt(above)


def measure_difference(
    name: str, first: tuple[int, int], second: tuple[int, int], *, direction: Direction, level: float = 0.95
) -> Measurement:
    """Compute the difference of two independent rates, such as training minus test accuracy (the overfitting level).

    Args:
        name: Name of the measurement.
        first: (successes, n) of the first rate.
        second: (successes, n) of the second rate.
        direction: Which direction is good for the owner.
        level: Confidence level.
    """
    value, low, high = map(float, combine_rates(first, second, (1.0, -1.0), level))
    return Measurement(
        name=name,
        value=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        level=level,
        n=first[1] + second[1],
        direction=direction,
        method=MOVER,
    )


def subtract_measurement(one: Measurement, other: Measurement) -> Measurement:
    """Subtract a measurement from another one of the same quantity, as if both were of records of their own (MOVER).

    On the same records the interval is too wide rather than too narrow.

    Args:
        one: With value and limits.
        other: What is subtracted, with value and limits.

    Returns:
        The difference, with the name and the direction of ``one``.
    """
    assert one.value is not None and one.low is not None and one.high is not None
    assert other.value is not None and other.low is not None and other.high is not None
    value = one.value - other.value
    return Measurement(
        name=one.name,
        value=value,
        low=value - math.hypot(one.value - one.low, other.high - other.value),
        high=value + math.hypot(one.high - one.value, other.value - other.low),
        level=min(one.level, other.level),
        n=min(one.n, other.n),
        direction=one.direction,
        method=MOVER_UNPAIRED,
    )


def compute_bounded_mean(
    values: NDArray[np.floating], bounds: tuple[float, float], level: float
) -> tuple[Floats, Floats]:
    """Compute the interval of the mean of bounded values along the last axis.

    A sample may miss values that matter: one value in a thousand at the far bound shifts the mean, and most samples of
    a hundred contain none. For the upper end, one value at the upper bound is therefore added, and all n + 1 values get
    random weights that sum to 1, uniformly distributed (Dirichlet); for the lower end, one value at the lower bound is
    added. For values of 0 and 1, the quantiles of the weighted mean are exactly Clopper and Pearson's limits; for
    others, they are the limits of Learned-Miller and Thomas ("A new confidence interval for the mean of a bounded
    random variable", 2019). The distribution of the weighted mean is approximated by the Beta distribution with its
    exact mean and variance, between the smallest and the largest value involved.

    Args:
        values: ...×N, at least one, within the bounds.
        bounds: Least and largest possible value.
        level: Confidence level.

    Returns:
        Lower and upper ends.
    """
    numbers: Floats = np.asarray(values, dtype=np.float64)
    upper = _weighted_mean_limit(numbers, bounds[1], level)
    return -_weighted_mean_limit(-numbers, -bounds[0], level), upper


def _weighted_mean_limit(values: Floats, bound: float, level: float) -> Floats:
    """Compute the upper limit of `compute_bounded_mean`."""
    n = values.shape[-1] + 1
    least = np.minimum(values.min(axis=-1), bound)
    span = bound - least
    # Distances from the bound as shares of the span; that of the added value is 0.
    shares = (bound - values) / np.where(span > 0, span, 1.0)[..., None]
    mean = shares.sum(axis=-1) / n
    variance = ((shares**2).sum(axis=-1) / n - mean**2) / (n + 1)
    return np.asarray(np.where(span > 0, bound - span * compute_beta_quantile(mean, variance, (1 - level) / 2), bound))


def compute_beta_quantile(mean: ArrayLike, variance: ArrayLike, share: float) -> Floats:
    """Compute the quantile of the Beta distribution with a given mean and variance; the mean if the variance is 0.

    Args:
        mean: Means.
        variance: Variances.
        share: Probability of the quantile, in (0, 1).
    """
    mean, variance = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    spread = mean * (1 - mean)
    usable = (variance > 1e-300) & (spread > variance)
    size = np.where(usable, spread / np.where(usable, variance, 1.0) - 1, 1.0)
    inner = np.where(usable, mean, 0.5)
    return np.where(usable, special.betaincinv(inner * size, (1 - inner) * size, share), mean)


def compute_ratio_interval(
    both: ArrayLike, only_first: ArrayLike, only_second: ArrayLike, neither: ArrayLike, level: float
) -> tuple[Floats, Floats]:
    """Compute the interval of the ratio of two rates of the same records, by MOVER on their logarithms.

    Args:
        both: Number of records on which both succeed; the second must succeed at least once.
        only_first: Number of records on which only the first succeeds.
        only_second: Number of records on which only the second succeeds.
        neither: Number of the other records.
        level: Confidence level.

    Returns:
        Lower end, 0 if the first never succeeds, and upper end.
    """
    a, b, c, d = (np.asarray(count, dtype=np.float64) for count in (both, only_first, only_second, neither))
    n, first, second = a + b + c + d, a + b, a + c
    (low_1, high_1), (low_2, high_2) = (
        compute_clopper_pearson(first, n, level),
        compute_clopper_pearson(second, n, level),
    )
    p, q = first / n, second / n
    scale = np.sqrt(first * (n - first)) * np.sqrt(second * (n - second))
    excess = a * d - b * c
    # Newcombe's continuity correction keeps a chance association from shortening the interval.
    excess = np.where(excess > 0, np.maximum(excess - n / 2, 0.0), excess)
    phi = np.where(scale > 0, excess / np.where(scale > 0, scale, 1.0), 0.0)

    def reach(one: Floats, other: Floats) -> Floats:
        return np.sqrt(np.maximum(one**2 - 2 * phi * one * other + other**2, 0.0))

    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(p) - np.log(q)
        low = np.exp(value - reach(np.log(p) - np.log(low_1), np.log(high_2) - np.log(q)))
        high = np.exp(value + reach(np.log(high_1) - np.log(p), np.log(q) - np.log(low_2)))
    none = first == 0
    return np.where(none, 0.0, low), np.where(none, high_1 / low_2, high)


def compute_percentile_interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    """Return the central interval of a bootstrap distribution."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def count_draws(share: float, level: float) -> int:
    """Return how many draws contain an event of this probability at least once with confidence (1 + level) / 2."""
    return math.ceil(math.log((1 - level) / 2) / math.log1p(-share) - 1e-9)


if not TYPE_CHECKING:  # checkers of types know the present names only
    __getattr__ = forward_names(
        __name__,
        {
            "clopper_pearson": "compute_clopper_pearson",
            "combine": "combine_rates",
            "difference": "measure_difference",
            "bounded_mean": "compute_bounded_mean",
            "beta_quantile": "compute_beta_quantile",
            "ratio": "compute_ratio_interval",
            "percentile_interval": "compute_percentile_interval",
        },
    )
