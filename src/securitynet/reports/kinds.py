"""The properties of a measurement that follow from its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["share", "points", "plain"]
"""share: written as a percentage; points: a difference of percentages; plain: as it is."""


@dataclass(frozen=True)
class Kind:
    """The properties of a measurement that follow from its name.

    Attributes:
        label: For a table.
        unit: How its numbers are written.
        chance: What guessing would give; None where there is nothing to guess.
        fpr: The bound, for TPR at a FPR.
        one_sided: The value is itself the end of a one-sided interval, and has no other end.
    """

    label: str
    unit: Unit = "plain"
    chance: float | None = None
    fpr: float | None = None
    one_sided: bool = False
