"""What the test of a claim returns, and when it supports or contradicts the claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas

from securitynet.analysis.statistics import Estimate

FEWEST = 6
"""Fewest models for a verdict: with fewer, resampling gives intervals that are far too narrow."""

Verdict = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True, eq=False)
class Tested:
    """The outcome of a test.

    Attributes:
        estimate: What decides.
        label: Over what it was computed: ``within 5 datasets``, ``pooled over 4 datasets``, ``on CIFAR-10``.
        beside: (label, estimate) of other estimands of the same quantities, which are shown and decide nothing.
        confirmed_by: Of these, one must lie on the same side of zero for a verdict; none are needed if it is empty. A
            correlation that is pooled over datasets, for instance, is no more than chance if it is found neither within
            the datasets nor over datasets as the units.
        notes: Further sentences.
        fewest: Fewest units for a verdict.
        units: What the estimate's ``n`` counts.
    """

    estimate: Estimate
    label: str = ""
    beside: tuple[tuple[str, Estimate], ...] = ()
    confirmed_by: tuple[Estimate, ...] = ()
    notes: tuple[str, ...] = ()
    fewest: int = FEWEST
    units: str = "models"


Test = Callable[[pandas.DataFrame, float], Tested]
"""From a wide frame and a confidence level to the outcome."""


def make_unresolved(reason: str, n: int = 0) -> Tested:
    """The outcome where nothing can be computed, with the reason."""
    return Tested(Estimate(np.nan, np.nan, np.nan, None, n, None, reason))


def bound_difference(estimate: Estimate) -> Estimate:
    """The estimate of a difference of two values in [0, 1], with its interval cut where no difference can lie."""
    return replace(estimate, low=max(estimate.low, -1.0), high=min(estimate.high, 1.0))


def name_units(estimate: Estimate, units: str) -> Estimate:
    """The estimate with the name of what was left out one by one: neither models nor families."""
    return replace(estimate, method=re.sub(r"\b(models|families)\b", units, estimate.method))


def decide_outcome(tested: Tested, sign: Literal[1, -1], against: float = 0.0) -> tuple[Verdict, str]:
    """The verdict on a claim that the estimate lies above (1) or below (-1) a value, and a note on it.

    Args:
        tested: The outcome.
        sign: The side that is claimed.
        against: The value.
    """
    side = _side(tested.estimate, against)
    if side == 0:
        return "undecided", ""
    if tested.confirmed_by and not any(_side(other, against) == side for other in tested.confirmed_by):
        return "undecided", (
            "The relation lies between groups that are too few to tell it from chance, and is not found within them."
        )
    return ("supported" if side == sign else "contradicted"), ""


def decide_none(tested: Tested, margin: float, against: float = 0.0) -> Verdict:
    """The verdict on a claim of equivalence, by two one-sided tests (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987).

    Args:
        tested: The outcome, whose interval has level ``1 - 2 * alpha`` for tests at ``alpha``.
        margin: The largest difference that counts as none.
        against: The value that the estimate is claimed to equal.
    """
    low, high = tested.estimate.low - against, tested.estimate.high - against
    if -margin < low and high < margin:
        return "supported"
    return "contradicted" if low > margin or high < -margin else "undecided"


def _side(estimate: Estimate, against: float) -> int:
    """Which side of a value the whole interval lies on; 0 if it contains the value or there is none."""
    return int(estimate.low > against) - int(estimate.high < against)


def list_words(names: Sequence[str], most: int = 5) -> str:
    """``a, b and c``; of many, the first and how many more."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
