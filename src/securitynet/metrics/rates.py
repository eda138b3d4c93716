"""Rates of successes, and differences and means of two such rates, with intervals."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from securitynet.records import Direction, Measurement

WILSON = "Wilson"
NEWCOMBE = "Newcombe hybrid score"


def wilson(successes: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a binomial rate (1927)."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson(successes: int, n: int, level: float) -> tuple[float, float]:
    """The exact interval of a binomial rate: it covers at least ``level``, at every n."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def rate(name: str, successes: int, n: int, *, direction: Direction, level: float = 0.95) -> Measurement:
    """A binomial rate with Wilson's interval."""
    value = successes / n
    low, high = wilson(successes, n, level)
    # Rounding may put the ends a hair inside at 0 and at 1.
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=n,
        direction=direction,
        method=WILSON,
    )


def combine(
    first: tuple[int, int], second: tuple[int, int], weights: tuple[float, float], level: float
) -> tuple[float, float, float]:
    """Value and interval of ``w1·p1 + w2·p2`` for two independent binomial rates.

    Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10), generalised to any weights: the
    distances of each rate to its Wilson limits are added in quadrature.

    Args:
        first: (successes, n) of the first rate.
        second: (successes, n) of the second rate.
        weights: w1 and w2; (1, -1) for a difference, (0.5, 0.5) for a mean.
        level: Confidence level.

    Returns:
        (value, low, high).
    """
    value, below, above = 0.0, 0.0, 0.0
    for (successes, n), weight in zip((first, second), weights, strict=True):
        p = successes / n
        low, high = wilson(successes, n, level)
        to_low, to_high = weight * (p - low), weight * (high - p)
        if weight < 0:
            to_low, to_high = -to_high, -to_low
        value += weight * p
        below += to_low**2
        above += to_high**2
    return value, value - math.sqrt(below), value + math.sqrt(above)


def difference(
    name: str, first: tuple[int, int], second: tuple[int, int], *, direction: Direction, level: float = 0.95
) -> Measurement:
    """Difference of two independent rates, such as training minus test accuracy (the overfitting level)."""
    value, low, high = combine(first, second, (1.0, -1.0), level)
    return Measurement(
        name=name,
        value=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        level=level,
        n=first[1] + second[1],
        direction=direction,
        method=NEWCOMBE,
    )


def percentile_interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    """The central ``level`` of a bootstrap distribution."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
