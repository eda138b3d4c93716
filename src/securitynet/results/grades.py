"""Grades: how much of a weakness was shown in each family, in one of six words, and the table that decides them.

A grade follows from an interval, never from a point estimate. `decide_grade` holds the rule, `DEFAULT_BOUNDS` the
table; ``docs/grades.md`` explains both, and the table ``grades`` of a policy file overrides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field, model_validator

from securitynet.records import Record

Grade = Literal["high", "moderate", "slight", "undecided", "none shown", "not assessed"]

GRADES: tuple[Grade, ...] = get_args(Grade)
"""From the worst to those that say least."""


class GradeBounds(Record):
    """Where two grades begin, on the scale of one number.

    Attributes:
        moderate: The lower end of the interval from which the grade is moderate.
        high: The lower end of the interval from which the grade is high.
    """

    moderate: float = Field(strict=True, allow_inf_nan=False)
    high: float = Field(strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _are_in_order(self) -> GradeBounds:
        if self.moderate > self.high:
            raise ValueError("moderate is above high")
        return self


GradeTable = Mapping[str, GradeBounds]

DEFAULT_BOUNDS: dict[str, GradeBounds] = {
    "membership.auc": GradeBounds(moderate=0.60, high=0.75),
    "membership.tpr-over-fpr": GradeBounds(moderate=3.0, high=10.0),
    "stealing.agreement": GradeBounds(moderate=0.80, high=0.95),
    "inversion.accuracy": GradeBounds(moderate=0.50, high=0.80),
    "attribute.gain": GradeBounds(moderate=0.05, high=0.20),
    "evasion.success": GradeBounds(moderate=0.10, high=0.50),
    "backdoor.verdict": GradeBounds(moderate=2.0, high=3.0),
}
"""Number -> where the grades begin; a family may be graded by several numbers."""


class FamilyGrade(Record):
    """The grade of one family of attacks or detectors.

    Attributes:
        family: Its name, a key of `securitynet.records.FAMILIES`.
        grade: In words.
        measurement: Name of the measurement that the grade follows from; None if nothing was measured.
        bounds: The part of the table that was applied.
    """

    family: str
    grade: Grade
    measurement: str | None = Field(default=None, description="The measurement that the grade follows from.")
    bounds: dict[str, GradeBounds] = Field(description="Where moderate and high begin, on the scale of each number.")


def decide_grade(low: float, high: float, *, chance: float, bounds: GradeBounds) -> Grade:
    """The grade of a number that is worse for the owner the higher it is, from its interval.

    ``none shown`` is given only where a moderate weakness would have been seen: the upper end lies below it. A wide
    interval that includes both chance and a moderate weakness is ``undecided``.

    Args:
        low: Lower end of the interval, corrected for the number of attacks that the number was chosen from.
        high: Upper end of the interval.
        chance: What guessing, or no attack, would give.
        bounds: Where the grades begin.
    """
    if low > chance:
        return "high" if low >= bounds.high else "moderate" if low >= bounds.moderate else "slight"
    return "none shown" if high < bounds.moderate else "undecided"
