"""The audit of one training run against a whole trade-off curve (Mahloujifar, Melis and Chaudhuri, 2024).

A trade-off curve f bounds every test of whether one record was trained on: its type II error is at least f(type I
error). It says more than one pair of epsilon and delta, so the same guesses rule out more: "Auditing f-Differential
Privacy in One Run", Theorem 3.2 and Algorithm 3. The guesses are those of `securitynet.metrics.one_run_audit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics.defaults import DEFAULT_DELTA
from securitynet.metrics.one_run_audit import (
    LARGEST_EPSILON,
    Guesses,
    describe_bound,
    divide_error,
    find_largest_rejected,
    guess,
)
from securitynet.records import Measurement

InverseBlowUp = Callable[[float], float]
"""The least probability that an event can have without a record, given its probability with it; and vice versa.

For a trade-off curve f this is the inverse of x -> 1 - f(x), and 0 where 1 - f(0) is larger.
"""


def make_gaussian_curve(mu: float) -> InverseBlowUp:
    """Return the curve of mu-Gaussian differential privacy: Φ(Φ⁻¹(y) − μ) (Dong, Roth and Su, 2022).

    Args:
        mu: Sensitivity divided by the deviation of the noise, at least 0.
    """
    return lambda y: float(special.ndtr(special.ndtri(y) - mu))


def make_profile_curve(profile: Sequence[tuple[float, float]]) -> InverseBlowUp:
    """Return the curve that several guarantees of (epsilon, delta)-differential privacy imply together.

    Each of them keeps P ≤ e^ε·Q + δ for an event and for its complement, in both directions.

    Args:
        profile: Pairs of epsilon and delta that all hold.
    """
    pairs = np.asarray(profile, dtype=np.float64).reshape(-1, 2)
    # An epsilon above 700 bounds nothing in double precision.
    factors, deltas = np.exp(np.minimum(pairs[:, 0], 700.0)), pairs[:, 1]

    def invert(y: float) -> float:
        by_event = ((y - deltas) / factors).max(initial=0.0)
        by_complement = (1 - deltas - factors * (1 - y)).max(initial=0.0)
        return float(max(by_event, by_complement, 0.0))

    return invert


def is_ruled_out(guesses: Guesses, curve: InverseBlowUp, error: float) -> bool:
    """Whether so many correct guesses have a probability below ``error`` under a trade-off curve.

    Mahloujifar, Melis and Chaudhuri, Algorithm 3, for canaries that are in or out. For p_j, the probability of j
    correct guesses of c, the algorithm bounds the sums Σ j·p_j / m and Σ (c − j)·p_j / m over j ≥ i from below, for i
    from the observed number down to 0, starting with probability ``error`` on the observed number. The curve is ruled
    out if the two sums then exceed c / m, which they equal for any distribution.

    Args:
        guesses: The guesses.
        curve: The curve, concave as the inverse of a trade-off curve must be, the same in both directions.
        error: The probability, in (0, 1).
    """
    number, correct, canaries = guesses.number, guesses.correct, guesses.canaries
    right = error * correct / canaries
    wrong = error * (number - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = curve(min(right, 1.0))
        if least <= wrong:
            break  # neither sum can grow any more
        right += i / (number - i) * (least - wrong)
        wrong = least
        if right + wrong > number / canaries:
            return True  # both sums only grow
    return right + wrong > number / canaries


def convert_gaussian_epsilon(mu: float, delta: float) -> float:
    """Convert mu-Gaussian differential privacy to epsilon at a delta (Dong, Roth and Su, 2022, Corollary 2.13).

    Args:
        mu: At least 0.
        delta: In (0, 1).

    Returns:
        The smallest epsilon ≥ 0 with Φ(−ε/μ + μ/2) − e^ε·Φ(−ε/μ − μ/2) ≤ δ.
    """
    if mu == 0 or _gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while _gaussian_delta(mu, high) > delta:
        high *= 2
    return float(scipy.optimize.brentq(lambda epsilon: _gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-8))


def measure_gaussian_epsilon(
    scores: NDArray[np.float64], included: NDArray[np.bool_], *, delta: float = DEFAULT_DELTA, level: float = 0.95
) -> Measurement:
    """Compute the largest epsilon of a Gaussian mechanism that the guesses rule out anything below.

    The bound holds for trainings whose trade-off curve is that of a Gaussian mechanism, which that of DP-SGD is close
    to; other trainings can have a smaller epsilon at this delta. All entries of
    `securitynet.metrics.one_run_audit.plan_guesses` are tried, each with its share of the error probability.

    Args:
        scores: N, higher meaning "more likely included".
        included: N, the coins.
        delta: In (0, 1).
        level: Confidence of the bound, in (0, 1).

    Returns:
        A measurement whose ``low`` and ``high`` are its value, the end of a one-sided interval.
    """
    attempts = guess(scores, included)
    best, chosen = 0.0, None
    for attempt, error in divide_error(attempts, level):

        def is_rejected(mu: float, attempt: Guesses = attempt, error: float = error) -> bool:
            return is_ruled_out(attempt, make_gaussian_curve(mu), error)

        if not is_rejected(best):
            continue
        bound = find_largest_rejected(is_rejected, best, _LARGEST_MU)
        if chosen is None or bound > best:
            best, chosen = bound, attempt
    epsilon = min(convert_gaussian_epsilon(best, delta), LARGEST_EPSILON)
    name = f"gaussian-epsilon@delta={delta:g}"
    return describe_bound(name, epsilon, chosen, attempts, level, "Mahloujifar et al. (2024), Gaussian curves")


def contradicts_curve(
    scores: NDArray[np.float64], included: NDArray[np.bool_], curve: InverseBlowUp, *, level: float = 0.95
) -> bool:
    """Whether the guesses rule out a stated trade-off curve, with an error probability of at most 1 − ``level``.

    Args:
        scores: N, higher meaning "more likely included".
        included: N, the coins.
        curve: The curve.
        level: Confidence over all numbers of guesses that are tried, in (0, 1).
    """
    attempts = guess(scores, included)
    return any(is_ruled_out(attempt, curve, error) for attempt, error in divide_error(attempts, level))


_LARGEST_MU = 12.0
"""Where the search for mu ends; epsilon is far beyond `LARGEST_EPSILON` there."""


def _gaussian_delta(mu: float, epsilon: float) -> float:
    first = float(special.ndtr(-epsilon / mu + mu / 2))
    return first - math.exp(epsilon + float(special.log_ndtr(-epsilon / mu - mu / 2)))
