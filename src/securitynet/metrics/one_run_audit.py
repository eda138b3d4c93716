"""Lower bounds on epsilon from one training run with canaries, each included by a fair coin of its own.

The auditor guesses some of the coins from the trained model and abstains on the others. Few training algorithms with
a small epsilon let anybody guess that many coins correctly, so a number of correct guesses rules small epsilons out.
The guesses may depend on the model in any way, and never on the coins.

`measure_epsilon` is Theorem 5.2 of Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run"
(2023). `securitynet.metrics.f_dp_audit` has the version for a whole trade-off curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics.defaults import DEFAULT_DELTA
from securitynet.records import Direction, Measurement

FEWEST_GUESSES = 10
"""Fewer guesses than this bound nothing: ten correct ones of ten have probability 0.001 without any model."""

LARGEST_EPSILON = 50.0
"""Bounds are not followed beyond this value, at which no privacy is left."""


@dataclass(frozen=True)
class Guesses:
    """Guesses on the canaries with the highest scores (included) and with the lowest (excluded).

    Attributes:
        canaries: Canaries in all.
        highest: Number of canaries that are guessed to be included.
        lowest: Number of canaries that are guessed to be excluded.
        correct: Number of guesses that are correct.
    """

    canaries: int
    highest: int
    lowest: int
    correct: int

    @property
    def number(self) -> int:
        """Guesses in all; the auditor abstains on the other canaries."""
        return self.highest + self.lowest


def plan_guesses(canaries: int) -> list[tuple[int, int]]:
    """List the numbers of guesses that an audit tries, as (highest, lowest).

    The list depends on the number of canaries only. An audit that takes the best entry is valid if it divides its error
    probability by the number of entries.

    Args:
        canaries: Canaries in all.

    Returns:
        Guesses "included" only, and guesses on both ends: 10, 20, 40 and so on, up to half of the canaries and all of
        them. Empty for fewer than ten canaries.
    """
    totals = []
    number = FEWEST_GUESSES
    while number < canaries:
        totals.append(number)
        number *= 2
    if canaries >= FEWEST_GUESSES:
        totals.append(canaries)
    planned = {(total - total // 2, total // 2) for total in totals}
    planned |= {(min(total, (canaries + 1) // 2), 0) for total in totals}
    return sorted(planned)


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> list[Guesses]:
    """Make the guesses of `plan_guesses`, and count the correct ones.

    Args:
        scores: N, higher meaning "more likely included". Ties are ordered by position, which no coin influences.
        included: N, the coins.

    Raises:
        ValueError: If the lengths differ, or a score is not a number.
    """
    if len(scores) != len(included):
        raise ValueError(f"{len(scores)} scores for {len(included)} canaries")
    if np.isnan(scores).any():
        raise ValueError("scores of canaries must be numbers")
    order = np.argsort(-scores, kind="stable")
    sorted_coins = np.asarray(included)[order]
    ins, outs = np.cumsum(sorted_coins), np.cumsum(~sorted_coins[::-1])
    made = []
    for highest, lowest in plan_guesses(len(scores)):
        correct = (int(ins[highest - 1]) if highest else 0) + (int(outs[lowest - 1]) if lowest else 0)
        made.append(Guesses(len(scores), highest, lowest, correct))
    return made


def bound_p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Bound the probability of so many correct guesses under (epsilon, delta)-differential privacy.

    Steinke, Nasr and Jagielski, Theorem 5.2: with W ~ Binomial(r, e^ε / (e^ε + 1)), v correct of r guesses on m
    canaries have probability of at most P[W ≥ v] + 2·m·δ·max over i of P[v > W ≥ v − i] / i.

    Args:
        guesses: The guesses.
        epsilon: At least 0.
        delta: In [0, 1].

    Returns:
        A p-value in [0, 1] of the claim that the training is (epsilon, delta)-differentially private with respect to
        adding or removing one canary.
    """
    rate = float(special.expit(epsilon))
    number, correct = guesses.number, guesses.correct
    beta = float(scipy.stats.binom.sf(correct - 1, number, rate))
    if delta == 0 or correct == 0:
        return min(beta, 1.0)
    below = np.arange(1, correct + 1)
    between = scipy.stats.binom.sf(correct - below - 1, number, rate) - beta
    alpha = float((between / below).max())
    return min(beta + 2 * guesses.canaries * delta * max(alpha, 0.0), 1.0)


def find_largest_rejected(is_rejected: Callable[[float], bool], low: float, largest: float = LARGEST_EPSILON) -> float:
    """Return the largest value, to four digits, that a test rejects along with all smaller ones.

    Args:
        is_rejected: The test; it rejects whatever lies below a value that it rejects.
        low: A value that it rejects, at which the search begins.
        largest: Where the search ends.
    """
    high = min(max(1.0, 2 * low), largest)
    while high < largest and is_rejected(high):
        low, high = high, min(2 * high, largest)
    if high == largest and is_rejected(largest):
        return largest
    while high - low > 1e-4 * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
    return low


def measure_epsilon(
    scores: NDArray[np.float64], included: NDArray[np.bool_], *, delta: float = DEFAULT_DELTA, level: float = 0.95
) -> Measurement:
    """Compute the epsilon that the guesses rule out anything below (Steinke, Nasr and Jagielski, 2023).

    All entries of `plan_guesses` are tried, each with its share of the error probability (Bonferroni), and the best
    counts.

    Args:
        scores: N, higher meaning "more likely included".
        included: N, the coins.
        delta: In [0, 1).
        level: Confidence of the bound, in (0, 1).

    Returns:
        A measurement whose ``low`` and ``high`` are its value, the end of a one-sided interval.
    """
    attempts = guess(scores, included)
    best, chosen = 0.0, None
    for attempt, error in divide_error(attempts, level):

        def is_rejected(epsilon: float, attempt: Guesses = attempt, error: float = error) -> bool:
            return bound_p_value(attempt, epsilon, delta) <= error

        # Whatever is not rejected at the best bound so far cannot improve it.
        if not is_rejected(best):
            continue
        bound = find_largest_rejected(is_rejected, best)
        if chosen is None or bound > best:
            best, chosen = bound, attempt
    return describe_bound(f"one-run-epsilon@delta={delta:g}", best, chosen, attempts, level, "Steinke et al. (2023)")


def divide_error(attempts: list[Guesses], level: float) -> Iterator[tuple[Guesses, float]]:
    """Yield each attempt with its share of the error probability, those with the highest share of correct ones first.

    Args:
        attempts: All attempts of an audit.
        level: Confidence of the bound over all of them.
    """
    for attempt in sorted(attempts, key=lambda one: -one.correct / one.number):
        yield attempt, (1 - level) / len(attempts)


def describe_bound(
    name: str, bound: float, chosen: Guesses | None, attempts: list[Guesses], level: float, source: str
) -> Measurement:
    """Put a bound into a measurement that says which guesses it rests on.

    Args:
        name: Name of the measurement.
        bound: The bound.
        chosen: The guesses that gave it; None if none rules anything out.
        attempts: All guesses that were tried; empty if there are too few canaries.
        level: Confidence of the bound.
        source: Where the method was published.
    """
    if not attempts:
        note = f"not resolvable: an audit needs at least {FEWEST_GUESSES} canaries"
        return Measurement(name=name, value=None, level=level, n=0, direction=Direction.LOWER, method="none", note=note)
    note = "no number of guesses rules out epsilon = 0"
    if chosen is not None:
        note = (
            f"{chosen.correct} of {chosen.number} guesses are correct ({chosen.highest} canaries guessed to be "
            f"included, {chosen.lowest} excluded, {chosen.canaries - chosen.number} not guessed)"
        )
    return Measurement(
        name=name,
        value=bound,
        low=bound,
        high=bound,
        level=level,
        n=attempts[0].canaries,
        direction=Direction.LOWER,
        method=f"one-sided bound of {source}; best of {len(attempts)} numbers of guesses, Bonferroni-corrected",
        note=note,
    )
