"""Is the smallest of some norms smaller than it would be by chance? Neural Cleanse's rule, and one with a level.

Neural Cleanse (Wang et al., 2019, section IV-B) flags a label whose norm lies more than two deviations (1.4826 times
the median absolute deviation) below the median. Among ten normal draws some draw does so in a third of all cases, so
that rule flags a third of all clean models whose norms are normally distributed. `low_outlier` gives a p-value instead.

**The null hypothesis**: the norms of a clean model's labels are exchangeable draws from one distribution, of unknown
location, scale and shape, the shape lying between the normal and the lognormal one.

**The test.** The statistic is Dixon's ratio (1950) of the ascending logarithms: the gap below the bulk over the width
of the lower bulk, (y[g] - y[0]) / (y[k-1] - y[g]). It looks only at the k lowest of n values (k about 1.25·√n, and at
least 4): over a short range all shapes look alike, while the distance from the median in deviations has a null
distribution that depends on the shape. Logarithms, because a backdoor trigger's norm is a fraction of the others', and
that stands out more there.

Of lognormal norms the statistic has one null distribution; of normal ones, one for each coefficient of variation, which
is estimated. Both are simulated. Which of the two shapes the norms have is decided by the likelihood of all but the
lowest tenth (those that might be outliers must decide nothing), and the two p-values are averaged with these weights.
Values that are not all positive have no logarithms, and are tested as they are, for the normal shape.

With g = 2 from `MASKING` values on, a second outlier beside the first does not hide it; with fewer values g is 1, and
two outliers of about the same size hide each other.

Its false-positive rate at a nominal 5%, by simulation (`benchmarks/backdoor_calibration.py`), is 5 to 7% for normal
norms with a coefficient of variation of 0.1 to 0.3, and 3 to 5.5% for lognormal ones with deviations of 0.1 to 1, at 5
to 200 labels: no test of ten values can distinguish the two shapes, and a test exact for both would detect nothing.
Distributions with a longer lower tail than the normal are outside the hypothesis and are flagged more often. If clean
models of the same kind are available, `against_reference` makes no assumption about the shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]
Shape = Literal["auto", "normal", "lognormal"]

CONSISTENCY = 1.4826
"""Factor by which the median absolute deviation of normal draws estimates their standard deviation."""

FEWEST = 4
"""Smallest number of values for a statement about the smallest one."""

MASKING = 20
"""Number of values from which on the second smallest may be an outlier too."""

DRAWS = 200_000
"""Number of simulated sets of values per table; a quarter of that from 200 values on."""

VARIATIONS = np.linspace(0, 0.35, 8)
"""Coefficients of variation that are tabulated. Normal draws that vary more would often be negative."""

PRIOR_NORMAL = 0.9
"""Weight of the normal shape before the data speak. The normal has the longer lower tail, so this errs on the safe side
where few values can't tell the two shapes apart."""

SHARPNESS = 3.0
"""Power of the likelihood in the weights. With 1, sets that are clearly of one shape still pay for the other."""


def anomaly_indices(values: Values) -> Values:
    """Return how many deviations each value lies below the median, N: Neural Cleanse's anomaly index.

    The median of an even number of values is the mean of the middle two. If more than half of the values are equal,
    the deviation is 0, and a value that differs is infinitely far away.

    Args:
        values: N, at least one, finite.
    """
    return indices_among(values, values)


def indices_among(values: Values, bulk: Values) -> Values:
    """Return `anomaly_indices` of values, with the median and the deviation of other values, ``bulk``."""
    median = float(np.median(bulk))
    deviation = CONSISTENCY * float(np.median(np.abs(bulk - median)))
    below = median - values
    if deviation == 0:
        return np.where(below == 0, 0.0, np.copysign(np.inf, below))
    return np.asarray(below / deviation)


@lru_cache(maxsize=64)
def rule_false_positives(count: int, threshold: float = 2.0) -> tuple[int, int]:
    """Simulate how often an anomaly index above the threshold occurs in normal draws: (sets flagged, sets drawn).

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


@dataclass(frozen=True)
class LowOutlier:
    """The result of the test of the smallest value.

    Attributes:
        p_value: Probability, under the null hypothesis, of a statistic at least as large.
        low: Lower end of its interval, for the finite number of simulated sets.
        high: Upper end.
        normal: Weight of the normal shape, in [0, 1].
        statistic: Dixon's ratio, of the logarithms where they were used.
    """

    p_value: float
    low: float
    high: float
    normal: float
    statistic: float


def low_outlier(
    values: Values, *, population: int | None = None, shape: Shape = "auto", level: float = 0.95
) -> LowOutlier | None:
    """Test whether the smallest value is smaller than expected from the others.

    Args:
        values: N finite ones. If ``population`` is given, the first of them is the smallest of a population and the
            others are a random sample of it.
        population: Size of the population; None if ``values`` are all there are.
        shape: Of the distribution; ``auto`` weighs both. Values that are not positive have no logarithm, and are taken
            for normal.
        level: Confidence level of the p-value's interval.

    Returns:
        None if there are fewer than `FEWEST` values.

    Raises:
        ValueError: If a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    if len(values) < FEWEST:
        return None
    if population is None or population <= len(values):
        size = len(values)
        ordered = np.sort(values)
    else:
        size = population
        ordered = np.concatenate([values[:1], np.sort(values[1:])])
    gap = 1 if len(ordered) < MASKING else 2
    width = width_of(len(ordered))
    tables = _tables(len(ordered), size, gap, width)
    parts: list[tuple[float, int]] = []  # (weight, number of the table)
    logarithms = shape != "normal" and ordered.min() > 0
    y = np.log(ordered) if logarithms else ordered
    normal = 0.0 if shape == "lognormal" and logarithms else 1.0
    if logarithms:
        if shape == "auto":
            normal, variation = _shape(ordered)
            at = min(int(np.searchsorted(VARIATIONS, variation, side="right")) - 1, len(VARIATIONS) - 2)
            share = (variation - VARIATIONS[at]) / (VARIATIONS[at + 1] - VARIATIONS[at])
            parts += [(normal * (1 - share), at), (normal * share, at + 1)]
        parts.append((1 - normal, 0))
    else:
        parts.append((1.0, 0))
    statistic = float(ratio(y, gap, width))
    drawn = tables.shape[1]
    counts = [(weight, drawn - int(np.searchsorted(tables[row], statistic))) for weight, row in parts]
    tail = (1 - level) / 2
    p_value = sum(weight * (count + 1) / (drawn + 1) for weight, count in counts)
    low = sum(weight * special.betaincinv(count, drawn - count + 1, tail) for weight, count in counts if count)
    high = sum(
        weight * (special.betaincinv(count + 1, drawn - count, 1 - tail) if count < drawn else 1.0)
        for weight, count in counts
    )
    return LowOutlier(float(p_value), min(float(low), p_value), max(float(high), p_value), normal, statistic)


def suspects(values: Values, *, alpha: float = 0.05, shape: Shape = "auto", population: int | None = None) -> list[int]:
    """Return the positions of low outliers: the smallest value is removed repeatedly while the test rejects.

    Args:
        values: See `low_outlier`. With a ``population`` only its smallest, the first one, is tested.
        alpha: Nominal level.
        shape: See `low_outlier`.
        population: See `low_outlier`.
    """
    if population is not None and population > len(values):
        test = low_outlier(values, population=population, shape=shape)
        return [0] if test is not None and test.p_value <= alpha else []
    order = np.argsort(values, kind="stable")
    positions: list[int] = []
    for number in range(len(values) // 3):
        test = low_outlier(values[order[number:]], shape=shape)
        if test is None or test.p_value > alpha:
            break
        positions.append(int(order[number]))
    return positions


def against_reference(values: Values, reference: Sequence[Values]) -> float | None:
    """Compute a p-value from clean models of the same kind, label by label, without assuming a shape.

    The statistic is the largest, over the labels, of the deviations by which a logarithm of a norm lies below its mean
    over all models, the tested one included (so that all models are treated alike). If the tested model is clean, it is
    exchangeable with the references, and the share of models whose statistic is at least as large is a valid p-value
    (Vovk et al., conformal prediction). It is at least 1 / (references + 1).

    Args:
        values: N positive norms; infinite or NaN where a label has none.
        reference: The norms of clean models, N each.

    Returns:
        None if there are no references.
    """
    if not reference:
        return None
    table = np.stack([np.asarray(values, dtype=np.float64), *map(np.asarray, reference)])
    logs = np.full(table.shape, np.nan)
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


def width_of(count: int) -> int:
    """Return how many of the lowest values the statistic uses."""
    return min(count, max(FEWEST, round(1.25 * math.sqrt(count))))


def ratio(ordered: Values, gap: int, width: int) -> Values:
    """Compute Dixon's ratio along the last axis: the gap below the bulk over the width of the lower bulk.

    With ties, the width can be 0; the ratio is then infinite, or 0 if the gap is 0 as well.

    Args:
        ordered: Ascending values, …×N.
        gap: Index of the value above the gap.
        width: Number of values in the lower bulk.
    """
    above = ordered[..., gap] - ordered[..., 0]
    below = ordered[..., width - 1] - ordered[..., gap]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(above <= 0, 0.0, above / below))


def _shape(ordered: Values) -> tuple[float, float]:
    """Weight of the normal shape, and its coefficient of variation, from the values but the lowest tenth.

    The weight compares censored normal likelihoods, to the power `SHARPNESS`; the places of the values are fitted by
    their normal scores.
    """
    count = len(ordered)
    trimmed = max(1, count // 10)
    scores = special.ndtri((np.arange(1, count + 1) - 0.375) / (count + 0.25))  # Blom's normal scores
    logs = np.log(ordered)
    centred = logs - logs[trimmed:].mean()
    log_likelihoods = {}
    variation = 0.0
    for name, y, jacobian in (
        ("lognormal", centred, -float(centred[trimmed:].sum())),
        ("normal", np.expm1(centred), 0.0),
    ):
        upper, x = y[trimmed:], scores[trimmed:] - scores[trimmed:].mean()
        slope = float(((upper - upper.mean()) * x).sum() / (x**2).sum())
        if slope <= 1e-9:  # all equal: nothing tells the shapes apart
            return PRIOR_NORMAL, 0.0
        start = float(upper.mean()) - slope * float(scores[trimmed:].mean())
        z = (y - start) / slope
        likelihood = -0.5 * float((z[trimmed:] ** 2).sum()) - len(upper) * math.log(slope) + jacobian
        log_likelihoods[name] = SHARPNESS * (likelihood + trimmed * float(special.log_ndtr(z[trimmed])))
        if name == "normal":
            variation = slope / (1 + start) if start > -1 else math.inf
    odds = log_likelihoods["normal"] - log_likelihoods["lognormal"] + math.log(PRIOR_NORMAL / (1 - PRIOR_NORMAL))
    return float(special.expit(odds)), float(np.clip(variation, 0, VARIATIONS[-1]))


@lru_cache(maxsize=32)
def _tables(count: int, population: int, gap: int, width: int) -> Values:
    """The statistic of simulated sets, sorted: V rows, one for each of `VARIATIONS`.

    Row v holds the logarithms of normal draws that vary so much; the first, where they vary infinitely little, holds
    the statistic of normal draws themselves, which is that of the logarithms of lognormal ones, too.

    Args:
        count: Values that the statistic is made of.
        population: Draws of which the smallest is one of the values, and a random sample the others.
        gap: Index of the value above the gap, as in `ratio`.
        width: Number of values in the lower bulk, as in `ratio`.
    """
    total = DRAWS if count < 200 else DRAWS // 4
    used = np.concatenate([z[:, [0, gap, width - 1]] for z in _draws(count, total, beyond=population - count)])
    rows = []
    for variation in VARIATIONS:
        # Draws that would be negative are next to nothing: norms are positive.
        y = used if variation == 0 else np.log(np.maximum(1 + variation * used, 1e-3))
        rows.append(np.sort(ratio(y, 1, 3)))
    return np.stack(rows)


def _draws(count: int, total: int, beyond: int = 0) -> Iterator[Values]:
    """Sets of normal draws in blocks, each set ascending; reproducible.

    With ``beyond``, so many further draws of the population are made; the smallest of all comes first, and a random
    sample of the others after it.
    """
    generator = np.random.default_rng(20190519)
    block = max(1, 2_000_000 // (count + beyond))
    for start in range(0, total, block):
        rows = min(block, total - start)
        if not beyond:
            yield np.sort(generator.standard_normal((rows, count)), axis=1)
            continue
        drawn = generator.standard_normal((rows, count + beyond))
        at = drawn.argmin(axis=1)
        least = drawn[np.arange(rows), at]
        drawn[np.arange(rows), at] = drawn[:, -1]  # the population without its smallest, in random order
        yield np.concatenate([least[:, None], np.sort(drawn[:, : count - 1], axis=1)], axis=1)
