"""Is one class, or are all of them, far easier to send to another class than the reverse?

Input: the logarithms L(s, t) of the smallest triggers that send images of class s to class t. Classes that look alike
are easy to exchange in both directions, so the difference d(s, t) = L(s, t) - L(t, s) is free of that. What remains in
a clean model is that some classes are easier to reach or to leave than others: d(s, t) = g(t) - g(s) + noise. The g are
estimated by least squares; a backdoor from all classes to one is part of them and is not what is tested here.

- **One pair** (a source-specific backdoor): the largest externally studentised residual of the P = K(K - 1)/2
  differences has a t distribution with P - K degrees of freedom under normal noise; 2P times its tail is the p-value
  (Cook and Weisberg, "Residuals and influence in regression", 1982, section 2.2).
- **A mapping of all classes** (an all-to-all backdoor): the sum of the residuals along the assignment of sources to
  targets that makes it smallest, compared with the same sum after random changes of sign of the residuals, each fitted
  anew. Noise that is symmetric about 0 makes them exchangeable, up to the fit.

The smaller of the two p-values, doubled, is the p-value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from securitynet.metrics.high_outliers import Values
from securitynet.randomness import derived_seed

FEWEST = 5
"""Classes without which the tests are not computed."""

FLIPS = 499
"""Random changes of sign; they resolve p-values from 0.002 on."""

_FORBIDDEN = 1e9
"""Cost of sending a class to itself."""


@dataclass(frozen=True)
class Asymmetry:
    """The result of both tests.

    Attributes:
        pair: Source and target with the most negative residual.
        residual: That residual, in logarithms: the factor by which the trigger is smaller than expected is its exp.
        pair_p_value: Of one pair, in (0, 1].
        mapping: Target of each source in the best assignment, K.
        mapping_p_value: Of a mapping of all classes, in (0, 1].
    """

    pair: tuple[int, int]
    residual: float
    pair_p_value: float
    mapping: tuple[int, ...]
    mapping_p_value: float

    @property
    def p_value(self) -> float:
        """Of both tests together."""
        return min(1.0, 2 * min(self.pair_p_value, self.mapping_p_value))


def find_asymmetry(logarithms: Values, *, seed: int = 0, flips: int = FLIPS) -> Asymmetry | None:
    """Test the logarithms of trigger norms of all pairs of classes.

    Args:
        logarithms: K×K finite values, source by target; the diagonal is not used.
        seed: Of the changes of sign.
        flips: Number of changes of sign.

    Returns:
        None with fewer than `FEWEST` classes, or if all residuals are 0.
    """
    count = len(logarithms)
    if count < FEWEST:
        return None
    differences = np.where(np.eye(count, dtype=bool), 0.0, logarithms - logarithms.T)
    residuals = compute_residuals(differences)
    if np.abs(residuals).max() < 1e-12:
        return None
    source, target = np.unravel_index(int(residuals.argmin()), residuals.shape)
    mapping, cost = _assign(residuals)
    random = np.random.default_rng(derived_seed(seed, "class pairs"))
    upper = np.triu_indices(count, 1)
    as_small = 0
    for _ in range(flips):
        flipped = np.zeros_like(residuals)
        flipped[upper] = residuals[upper] * random.choice((-1.0, 1.0), len(upper[0]))
        as_small += _assign(compute_residuals(flipped - flipped.T))[1] <= cost + 1e-12
    return Asymmetry(
        pair=(int(source), int(target)),
        residual=float(residuals[source, target]),
        pair_p_value=_test_largest(residuals),
        mapping=tuple(int(goal) for goal in mapping),
        mapping_p_value=(as_small + 1) / (flips + 1),
    )


def compute_residuals(differences: Values) -> Values:
    """What is left of antisymmetric differences, K×K, after the least-squares fit of g(t) - g(s)."""
    heights = differences.mean(axis=0)
    residuals: Values = differences - (heights[None, :] - heights[:, None])
    np.fill_diagonal(residuals, 0.0)
    return residuals


def _test_largest(residuals: Values) -> float:
    """Bonferroni p-value of the largest externally studentised residual of all pairs."""
    count = len(residuals)
    pairs = count * (count - 1) // 2
    free = pairs - (count - 1)
    squares = float(np.square(residuals).sum() / 2)
    largest = float(np.square(residuals).max())
    rest = squares * (1 - 2 / count) - largest  # each difference has the leverage (K - 1) / P = 2 / K
    if rest <= 0:
        return float(np.finfo(np.float64).tiny)
    return min(1.0, 2 * pairs * float(stats.t.sf(np.sqrt(largest * (free - 1) / rest), free - 1)))


def _assign(residuals: Values) -> tuple[NDArray[np.int64], float]:
    """The assignment of sources to other classes with the smallest sum of residuals, and the sum."""
    costs = residuals + _FORBIDDEN * np.eye(len(residuals))
    rows, columns = optimize.linear_sum_assignment(costs)
    return columns, float(residuals[rows, columns].sum())
