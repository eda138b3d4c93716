"""Neural Cleanse's own rule, and the comparison of a model's norms with those of clean models.

Neural Cleanse (Wang et al., 2019, section IV-B) flags a label whose norm lies more than two deviations (1.4826 times
the median absolute deviation) below the median. Among ten normal draws some draw does so in a third of all cases, so
that rule accuses a third of all clean models whose norms are spread normally. `securitynet.metrics.outlier_blocks`
holds a test whose level is known; where clean models of the same kind are at hand, `compare_with_reference` assumes no
distribution at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CONSISTENCY = 1.4826
"""Makes the median absolute deviation of normal draws estimate their standard deviation."""


def compute_anomaly_indices(values: Values, bulk: Values | None = None) -> Values:
    """Deviations below the median of each value, N; Neural Cleanse's anomaly index, positive on the low side.

    The median of an even number of values is the mean of the middle two. Where more than half of the values are equal
    their deviation is 0, and a value that differs is infinitely far from them.

    Args:
        values: N, at least one, finite.
        bulk: Values whose median and deviation count; by default those of ``values`` themselves.
    """
    bulk = values if bulk is None else bulk
    median = float(np.median(bulk))
    deviation = CONSISTENCY * float(np.median(np.abs(bulk - median)))
    below = median - values
    if deviation == 0:
        return np.where(below == 0, 0.0, np.copysign(np.inf, below))
    return np.asarray(below / deviation)


@lru_cache(maxsize=64)
def count_rule_false_positives(count: int, threshold: float = 2.0) -> tuple[int, int]:
    """How often "an anomaly index above the threshold" flags normal draws: (sets flagged, sets drawn).

    Args:
        count: Values in a set.
        threshold: In deviations.
    """
    flagged, drawn = 0, 0
    for values in _draws(count, 40_000):
        median = np.median(values, axis=1)
        deviation = CONSISTENCY * np.median(np.abs(values - median[:, None]), axis=1)
        flagged += int(((median - values[:, 0]) > threshold * deviation).sum())
        drawn += len(values)
    return flagged, drawn


def compare_with_reference(values: Values, reference: Sequence[Values]) -> float | None:
    """A p-value from clean models of the same kind, label by label; no shape is assumed.

    The statistic is the largest, over the labels, of the deviations by which a logarithm of a norm lies below its mean
    over all models, the tested one included (so that all models are treated alike). If the tested model is clean, it is
    exchangeable with the references, and the share of models whose statistic is at least as large is a valid p-value
    (Vovk et al., conformal prediction). It can't be below 1 / (references + 1).

    Args:
        values: N positive norms; infinite where no trigger worked (right-censored), NaN where a label has none.
        reference: The norms of clean models, N each.

    Returns:
        None if there are no references.
    """
    if not reference:
        return None
    table = np.stack([np.asarray(values, dtype=np.float64), *map(np.asarray, reference)])
    logs = np.full(table.shape, np.nan)
    # A label without a working trigger has a norm beyond all that were found: as large as the largest of its kind.
    largest = np.where(np.isfinite(table), table, -np.inf).max(axis=0)
    table = np.where(np.isposinf(table) & np.isfinite(largest), largest, table)
    usable = np.isfinite(table) & (table > 0)
    logs[usable] = np.log(table[usable])
    counts = usable.sum(axis=0)
    comparable = counts >= 2
    if not comparable.any():
        return None
    logs = logs[:, comparable]
    below = np.nanmean(logs, axis=0) - logs
    below[np.isnan(below)] = -np.inf
    finite = np.where(np.isfinite(below), below, 0.0)
    deviation = np.sqrt((finite**2).sum(axis=0) / np.maximum(counts[comparable] - 1, 1))
    statistics = (below / np.where(deviation > 0, deviation, np.inf)).max(axis=1)
    # A model whose labels all failed has no low norm at all.
    return float((statistics >= statistics[0] - 1e-12).sum() / len(statistics))


def _draws(count: int, total: int) -> Iterator[Values]:
    """Sets of normal draws in blocks, each set ascending; reproducible."""
    generator = np.random.default_rng(20190519)
    block = max(1, 2_000_000 // count)
    for start in range(0, total, block):
        yield np.sort(generator.standard_normal((min(block, total - start), count)), axis=1)
