"""Differences of two measures of the same records: pairs are resampled, or counted, together."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement

NEWCOMBE_PAIRED = "Newcombe paired hybrid score"


def interval(first: NDArray[np.bool_], second: NDArray[np.bool_], level: float) -> tuple[float, float, float]:
    """Difference of the rates of two paired outcomes, and its interval.

    Newcombe's hybrid score interval for paired data (Statistics in Medicine 17, 1998, pages 2635-2650, method 10):
    Wilson's limits of both rates, with the correlation of the outcomes between them.

    Args:
        first: Whether the first holds, N.
        second: Whether the second holds for the same records, N.
        level: Confidence level.

    Returns:
        (rate of the first minus rate of the second, low, high).

    Raises:
        ValueError: If there are no records, or not as many of both.
    """
    n = len(first)
    if n == 0 or len(second) != n:
        raise ValueError("paired outcomes of at least one record are needed")
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((~first & second).sum())
    neither = n - both - only_first - only_second
    hits = both + only_first, both + only_second
    rate = hits[0] / n, hits[1] / n
    (low_1, high_1), (low_2, high_2) = (rates.wilson(count, n, level) for count in hits)
    spread = math.sqrt(hits[0]) * math.sqrt(n - hits[0]) * math.sqrt(hits[1]) * math.sqrt(n - hits[1])
    excess: float = both * neither - only_first * only_second
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    phi = excess / spread if spread else 0.0

    def length(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))

    value = rate[0] - rate[1]
    low = value - length(rate[0] - low_1, high_2 - rate[1])
    high = value + length(high_1 - rate[0], rate[1] - low_2)
    return value, max(-1.0, min(low, value)), min(1.0, max(high, value))


def difference(
    name: str, first: NDArray[np.bool_], second: NDArray[np.bool_], *, direction: Direction, level: float = 0.95
) -> Measurement:
    """Difference of the rates of two paired outcomes as a measurement; see `interval`."""
    value, low, high = interval(first, second, level)
    return Measurement(
        name=name,
        value=value,
        low=low,
        high=high,
        level=level,
        n=len(first),
        direction=direction,
        method=NEWCOMBE_PAIRED,
    )
