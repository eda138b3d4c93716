"""Tests whether batches were drawn by Poisson sampling, from what a trainer recorded about them."""

from __future__ import annotations

import scipy
from scipy import special

TESTS = ("total uses", "spread of batch sizes", "spread of uses")
"""Names of the tests, in the order of `compute_poisson_p_values`."""


def compute_poisson_p_values(
    total: int, size_spread: float, use_spread: float, *, records: int, steps: int, rate: float
) -> tuple[float, float, float]:
    """Compute two-sided p-values of "each record joined each batch by a coin of its own".

    Under Poisson sampling, the number of all uses, the sizes of batches and the uses of records are binomial numbers.
    The first is tested exactly. The other two spread as binomial numbers do: shuffled batches have equal sizes, and use
    each record equally often. Their sums of squared deviations are compared with a Gamma distribution that has the
    exact mean and variance of the sum.

    Args:
        total: Number of uses of all records in all batches.
        size_spread: Sum of (size − N·q)² over all T batches.
        use_spread: Sum of (uses − T·q)² over all N records.
        records: N.
        steps: T.
        rate: q, in (0, 1].

    Returns:
        P-values for `TESTS`.
    """
    return (
        float(scipy.stats.binomtest(total, records * steps, rate).pvalue),
        _spread_p_value(size_spread, count=steps, trials=records, rate=rate),
        _spread_p_value(use_spread, count=records, trials=steps, rate=rate),
    )


def _spread_p_value(spread: float, *, count: int, trials: int, rate: float) -> float:
    """Two-sided p-value of the squared deviations of ``count`` independent binomial numbers from their mean."""
    variance = trials * rate * (1 - rate)
    if variance == 0:
        return float(spread == 0)
    kurtosis = 3 + (1 - 6 * rate * (1 - rate)) / variance
    relative = (kurtosis - 1) / count  # variance of the mean of the squares, in units of the squared mean
    shape = 1 / relative
    scaled = spread / (count * variance) * shape
    return float(min(1.0, 2 * min(special.gammainc(shape, scaled), special.gammaincc(shape, scaled))))
