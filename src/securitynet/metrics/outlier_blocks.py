"""Are some norms, up to half of them, smaller than the others would lead one to expect? A test for blocks of outliers.

A test that looks only at the gap above the smallest value (such as Dixon's ratio, 1950) misses any outlier beside which
there is a second one, or an easy class. This one follows the generalised extreme
studentised deviate (Rosner, Technometrics 25, 1983) with the block statistics of Tietjen and Moore (Technometrics 14,
1972): for every k up to half of the labels it asks how far the k-th smallest norm lies below what the norms *above* it
predict. The k suspects take no part in that prediction, so they cannot hide one another.

**Null hypothesis.** The norms of a clean model's labels are independent draws of one distribution, either lognormal or
normal, of unknown location and scale. Which of the two it is is decided by the likelihood of the norms above the
suspected ones, and the p-values under both shapes are averaged with these weights.

**Statistic.** Let y(1) <= ... <= y(m) be the logarithms of the norms of the m labels that converged, of n in all. For
each k, a straight line is fitted to y(k+1), ..., y(m) against normal scores of a sample of n - k; its intercept a and
its slope b estimate the location and the scale of the labels that are not suspected. Then R(k) = (a - y(k)) / b.

**Censoring.** A label without a working trigger has a norm that is larger than the search could reach, not a missing
one: the n - m labels are right-censored. They keep their places among the normal scores, above all others.

**Level.** Each R(k) gets a p-value p(k) from simulated sets with the same n and m. The smallest k·p(k), which favours
small blocks because most backdoors have one target, is compared with its own simulated distribution, so trying many k
costs no false positives. Location and scale cancel for lognormal norms; for normal ones the coefficient of variation is
estimated. `benchmarks/backdoor_calibration.py` measures the level: 5% for lognormal norms, more for normal ones that
vary much, because a few norms do not show which of the two shapes they have. The norms of clean networks are closer to
lognormal ones (`docs/backdoors.md`), which `PRIOR_NORMAL` expresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics import rates

Values = NDArray[np.float64]

SETS = 20_000
"""Simulated sets of norms behind a table; a quarter of that from 60 labels on."""

FEWEST = 3
"""Labels, and labels that converged, without which the test cannot be computed."""

LARGEST_BLOCK = 24
"""Most outliers that are looked for, where half of the labels are more."""

VARIATIONS = np.linspace(0, 0.35, 8)
"""Coefficients of variation of normal norms that are tabulated. Normal draws that vary more would often be negative."""

PRIOR_NORMAL = 0.1
"""Weight of the normal shape before the norms decide."""

PRIOR_NORMAL_MANY = 0.9
"""The same from `MANY` labels on, where the shapes differ more in the tail, and the test can afford the safe one."""

MANY = 20

SHARPNESS = 3.0
"""Power of the likelihoods. With 1, norms that are clearly of one shape still pay for the other."""

FAR = 0.6
"""Largest share of the median of the others at which a label can be named an outlier. Clean networks have easy classes
too, and those norms form significant blocks, but they are not that far below the others' median."""

SAMPLE_TRIM = 0.2
"""Share of a random sample of labels, its lowest, that takes no part in the fit: some of them may be outliers."""


@dataclass(frozen=True)
class OutlierBlock:
    """Result of the test.

    Attributes:
        p_value: Probability, under the null hypothesis, of a block at least as extreme, in (0, 1].
        low: Lower end of its interval, for the finite number of simulated sets.
        high: Upper end.
        positions: Positions of the outliers at the tested level, ascending by norm: the largest significant block of
            norms that are at most `FAR` of the median of the others. Empty if there is none.
        normal: Weight of the normal shape, in [0, 1].
        size: The k with the smallest k·p(k).
    """

    p_value: float
    low: float
    high: float
    positions: tuple[int, ...]
    normal: float
    size: int


def find_outlier_block(
    norms: Values,
    *,
    sampled: NDArray[np.bool_] | None = None,
    population: int | None = None,
    alpha: float = 0.05,
    level: float = 0.95,
) -> OutlierBlock | None:
    """Test whether a block of the smallest norms is smaller than the others would lead one to expect.

    Args:
        norms: N positive norms; infinite where no trigger worked (right-censored).
        sampled: Which of them are a random sample of the population, N; the others are the smallest of the population.
            None if all labels were searched.
        population: Number of labels of the model; None if all were searched.
        alpha: Level at which outliers are named, in (0, 1).
        level: Confidence level of the interval of the p-value, in (0, 1).

    Returns:
        None where the test cannot be computed: fewer than `FEWEST` labels or converged labels.

    Raises:
        ValueError: If a norm is NaN or not positive.
    """
    norms = np.asarray(norms, dtype=np.float64)
    if np.isnan(norms).any() or (norms <= 0).any():
        raise ValueError("a norm is not a positive number")
    order = np.argsort(norms, kind="stable")
    lowest = np.log(norms[order][np.isfinite(norms[order])])
    if population is None or population <= len(norms) or sampled is None or sampled.all():
        design = _design(len(norms), len(lowest))
        bulk = lowest
    else:
        bulk = np.log(np.sort(norms[sampled & np.isfinite(norms)]))
        design = _sample_design(int(sampled.sum()), len(bulk), population, min(len(lowest), int((~sampled).sum())))
    if design is None:
        return None
    observed = design.statistics(bulk[None], lowest[None])[0]
    tables = _tables(design)
    suspected = design.trimmed or int(tables[0].shares(observed).argmin()) + 1
    normal, weights = _weigh_shapes(bulk, suspected, design.labels)
    p_values, lows, highs = np.zeros((3, design.largest))
    for weight, table in zip(weights, tables, strict=True):
        if weight > 0:
            ends = table.adjust(observed, level)
            for total, end in zip((p_values, lows, highs), ends, strict=True):
                total += weight * end
    best = int(p_values.argmin())
    p_value = float(p_values[best])
    rejected = [k for k in range(1, design.largest + 1) if p_values[k - 1] <= alpha and _is_far(norms[order], k)]
    count = rejected[-1] if rejected else 0
    positions = tuple(int(position) for position in order[:count])
    low, high = min(float(lows[best]), p_value), max(float(highs[best]), p_value)
    return OutlierBlock(p_value, low, high, positions, normal, best + 1)


def find_detection_limit(
    norms: Values, *, sampled: NDArray[np.bool_] | None = None, population: int | None = None, alpha: float = 0.05
) -> float | None:
    """The largest norm, as a share of the median norm, that would have been named an outlier, in [0, `FAR`].

    All norms but the smallest stay as they are. It says what a search like this one would miss: a backdoor whose
    trigger needs more than that share of the usual norm.

    Args:
        norms: As in `find_outlier_block`, and likewise the others.
        sampled: Which of them are a random sample.
        population: Number of labels of the model.
        alpha: Level of the test.

    Returns:
        0 if no norm, however small, would be an outlier; None where the test cannot be computed.
    """
    if find_outlier_block(norms, sampled=sampled, population=population) is None:
        return None
    finite = norms[np.isfinite(norms)]
    middle = float(np.median(finite))
    low, high = np.log(1e-6), 0.0
    changed = norms.copy()
    least = int(norms.argmin())

    def rejects(share: float) -> bool:
        changed[least] = middle * np.exp(share)
        test = find_outlier_block(changed, sampled=sampled, population=population, alpha=alpha)
        return test is not None and bool(test.positions)

    if not rejects(low):
        return 0.0
    for _ in range(12):
        half = (low + high) / 2
        low, high = (half, high) if rejects(half) else (low, half)
    return float(np.exp(low))


def _is_far(ordered: Values, size: int) -> bool:
    """Whether the ``size`` smallest of ascending norms are far below the median of the others."""
    return bool(ordered[size - 1] <= FAR * np.median(ordered[size:]))


@dataclass(frozen=True)
class _Design:
    """Which statistics are computed from how many labels; hashable, so tables can be cached by it.

    Attributes:
        labels: Labels behind the fits, n.
        converged: Those of them that are not censored, m.
        largest: Largest block, K.
        trimmed: Lowest values that no fit uses (random samples); 0 where fit k leaves out exactly the k lowest.
        beyond: Labels of the population that are not in the sample; 0 where there is no sample.
    """

    labels: int
    converged: int
    largest: int
    trimmed: int = 0
    beyond: int = 0

    def statistics(self, bulk: Values, lowest: Values) -> Values:
        """R(1), ..., R(K) of sets of ascending logarithms.

        Args:
            bulk: S×m at least; the values behind the fits.
            lowest: S×K at least; the smallest values.
        """
        intercepts, slopes = _fit_weights(self)
        bulk = bulk[:, : self.converged]
        centre = bulk[:, -1:]  # weights of intercepts sum to 1, of slopes to 0: this keeps large values exact
        above = (bulk - centre) @ intercepts + centre - lowest[:, : self.largest]
        spread = (bulk - centre) @ slopes
        tiny = 1e-9
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(above <= tiny, np.minimum(above, 0.0), above / np.maximum(spread, tiny)))


@lru_cache(maxsize=64)
def _fit_weights(design: _Design) -> tuple[Values, Values]:
    """Weights that make intercepts and slopes of all fits from m ascending values, each m×K."""
    intercepts, slopes = np.zeros((2, design.converged, design.largest))
    for column in range(design.largest):
        first = design.trimmed or column + 1
        size = design.labels if design.trimmed else design.labels - first
        ranks = np.arange(first, design.converged) - (0 if design.trimmed else first) + 1
        scores = compute_normal_scores(ranks, size)
        centred = scores - scores.mean()
        slopes[first:, column] = centred / (centred**2).sum()
        intercepts[first:, column] = 1 / len(scores) - slopes[first:, column] * scores.mean()
    return intercepts, slopes


def compute_normal_scores(ranks: NDArray[np.int64], size: int) -> Values:
    """Blom's approximations of the expected order statistics of ``size`` normal draws, for some ranks from 1."""
    return np.asarray(special.ndtri((ranks - 0.375) / (size + 0.25)))


def _design(labels: int, converged: int) -> _Design | None:
    """The design where all labels were searched: blocks of up to half of them, and two values left for the fit."""
    if labels < FEWEST or converged < FEWEST:
        return None
    return _Design(labels, converged, min(labels // 2, converged - 2, LARGEST_BLOCK))


def _sample_design(labels: int, converged: int, population: int, lowest: int) -> _Design | None:
    """The design where the bulk is a random sample, and the lowest labels of the population were searched besides."""
    trimmed = max(1, int(SAMPLE_TRIM * labels))
    if converged - trimmed < 3 or lowest < 1:
        return None
    return _Design(labels, converged, min(lowest, LARGEST_BLOCK), trimmed, population - labels)


@dataclass(frozen=True, eq=False)
class _Table:
    """Simulated statistics.

    Attributes:
        columns: R(k) of B sets, ascending, K rows of B.
        smallest: The smallest k·p(k) of each set, ascending, B.
    """

    columns: Values
    smallest: Values

    def shares(self, observed: Values) -> Values:
        """k·p(k) of observed statistics, K, where p(k) is the share of sets whose R(k) is at least as large."""
        sets = self.columns.shape[1]
        places = [np.searchsorted(c, r, side="left") for c, r in zip(self.columns, observed, strict=True)]
        return np.asarray((sets - np.array(places)) * np.arange(1, len(observed) + 1) / sets)

    def adjust(self, observed: Values, level: float) -> tuple[Values, Values, Values]:
        """p-values of observed statistics that allow for the search over k, and their exact intervals, each K."""
        sets = len(self.smallest)
        hits = np.searchsorted(self.smallest, self.shares(observed) + 1e-12, side="right").astype(np.float64)
        low, high = rates.compute_clopper_pearson(hits, sets, level)
        return (hits + 1) / (sets + 1), low, high


@lru_cache(maxsize=64)
def _tables(design: _Design) -> tuple[_Table, ...]:
    """One table for each of `VARIATIONS`, all from the same normal draws."""
    generator = np.random.default_rng(20190520)
    sets = SETS if design.labels + design.beyond < 60 else SETS // 4
    sample = np.sort(generator.standard_normal((sets, design.labels)), axis=1)
    lowest = sample[:, : design.largest]
    if design.beyond:
        # The lowest of the labels beyond the sample, by the spacings of uniform order statistics.
        steps = generator.standard_exponential((sets, design.largest)).cumsum(axis=1)
        rest = generator.standard_gamma(design.beyond - design.largest + 1, (sets, 1))
        others = special.ndtri(steps / (steps[:, -1:] + rest))
        lowest = np.sort(np.concatenate([lowest, others], axis=1), axis=1)[:, : design.largest]
    tables = []
    for variation in VARIATIONS:
        statistics = design.statistics(_to_logarithms(sample, variation), _to_logarithms(lowest, variation))
        columns = np.sort(statistics.T, axis=1)
        ranks = np.stack([np.searchsorted(c, s, side="left") for c, s in zip(columns, statistics.T, strict=True)])
        sizes = np.arange(1, design.largest + 1)[:, None]
        tables.append(_Table(columns, np.sort(((sets - ranks) * sizes / sets).min(axis=0))))
    return tuple(tables)


def _to_logarithms(draws: Values, variation: float) -> Values:
    """Logarithms of normal norms with a coefficient of variation; for 0, normal logarithms."""
    return draws if variation == 0 else np.log(np.maximum(1 + variation * draws, 1e-3))


def _weigh_shapes(logs: Values, suspected: int, labels: int) -> tuple[float, Values]:
    """Weight of the normal shape, and the weights of the `VARIATIONS`, from the norms above the suspected ones.

    The likelihoods of both shapes, to the power `SHARPNESS`, are compared; location and scale come from a straight line
    against normal scores, as in the statistic.

    Args:
        logs: Ascending logarithms of the converged labels' norms, m.
        suspected: How many of the lowest decide nothing.
        labels: n, of which n - m are censored.
    """
    weights = np.zeros(len(VARIATIONS))
    used = len(logs) - suspected
    scores = compute_normal_scores(np.arange(1, used + 1), labels - suspected)
    prior = PRIOR_NORMAL if labels < MANY else PRIOR_NORMAL_MANY
    centred = logs[suspected:] - logs[suspected:].mean()
    likelihoods, variation = [], 0.0
    for y, jacobian in ((centred, -float(centred.sum())), (np.expm1(centred), 0.0)):
        slope = float(((y - y.mean()) * (scores - scores.mean())).sum() / ((scores - scores.mean()) ** 2).sum())
        if slope <= 1e-9:  # all equal: nothing tells the shapes apart
            weights[0] = 1.0
            return prior, weights
        start = float(y.mean()) - slope * float(scores.mean())
        z = (y - start) / slope
        censored = (labels - len(logs)) * float(special.log_ndtr(-z[-1]))
        likelihoods.append(SHARPNESS * (jacobian - 0.5 * float((z**2).sum()) - used * np.log(slope) + censored))
        variation = slope / (1 + start) if start > -1 else VARIATIONS[-1]
    odds = likelihoods[1] - likelihoods[0] + np.log(prior / (1 - prior))
    normal = float(special.expit(odds))
    variation = float(np.clip(variation, 0, VARIATIONS[-1]))
    at = min(int(np.searchsorted(VARIATIONS, variation, side="right")) - 1, len(VARIATIONS) - 2)
    share = (variation - VARIATIONS[at]) / (VARIATIONS[at + 1] - VARIATIONS[at])
    weights[[at, at + 1]] = normal * (1 - share), normal * share
    weights[0] += 1 - normal
    return normal, weights
