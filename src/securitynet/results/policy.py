"""The outcome of a policy, as ``result.json`` holds it."""

from __future__ import annotations

from typing import Literal

from securitynet.records import Record

Comparator = Literal[">=", "<=", "rise <=", "fall <="]
"""How a measurement is compared with a bound: it, or its change against an earlier result."""


class Violation(Record):
    """A bound of the policy that is not met.

    Attributes:
        name: Of the measurement.
        bound: In words.
        value: What was measured; None if it was not, or can't be resolved.
        why: In words.
        comparator: The comparison that fails; None if there is nothing to compare.
    """

    name: str
    bound: str
    value: float | None
    why: str
    comparator: Comparator | None = None


class PolicyCheck(Record):
    """One comparison of a measurement, or of its change, with a bound.

    Attributes:
        metric: Name of the measurement.
        comparator: How it is compared: at least, at most, or its rise or fall at most.
        threshold: The bound.
        on: Whether the value, or the whole interval, must be within the bound.
        value: What was measured; None if it was not, or can't be resolved.
        passed: Whether the bound is met.
        sample_size: Samples behind the value.
    """

    metric: str
    comparator: Comparator
    threshold: float
    on: Literal["value", "interval"] = "value"
    value: float | None
    passed: bool
    sample_size: int


class PolicyOutcome(Record):
    """Whether the bounds of a policy file are met.

    Attributes:
        met: Whether all of them are.
        bounds: How many there are; a pattern counts once for each measurement that it matches.
        violations: Those that are not met.
        checks: All comparisons, those that are met included; empty in results of earlier versions.
    """

    met: bool
    bounds: int
    violations: tuple[Violation, ...]
    checks: tuple[PolicyCheck, ...] = ()
