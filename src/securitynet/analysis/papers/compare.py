"""The papers' numbers beside this data's: the same statistic on the same kind of models, with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas

from securitynet.analysis.figures.texts import estimate, number
from securitynet.analysis.hypotheses.cases import NoCases, select_rows
from securitynet.analysis.papers.printed import Printed
from securitynet.analysis.statistics import Estimate

Agreement = Literal["agrees", "differs", "no interval"]

MOST_IN_CAPTION = 8


@dataclass(frozen=True, eq=False)
class Compared:
    """A printed number and this data's.

    Attributes:
        printed: The paper's.
        here: This data's, with a 95% interval.
        agreement: ``agrees`` if the printed number, known to half a unit of its last digit, lies in the interval or
            equals the value to that digit.
    """

    printed: Printed
    here: Estimate
    agreement: Agreement

    @property
    def difference(self) -> float:
        """This data's minus the paper's."""
        return self.here.value - self.printed.value

    @property
    def paper_text(self) -> str:
        """The paper's number as text."""
        return _text(self.printed.value, self.printed)

    @property
    def here_text(self) -> str:
        """This data's number with its interval, and n."""
        scale = 100 if self.printed.percent else 1
        decimals = max(self.printed.decimals - (2 if self.printed.percent else 0), 0)
        ends = (self.here.value * scale, self.here.low * scale, self.here.high * scale)
        if not np.isfinite(self.here.low):
            return f"{number(ends[0], decimals)}{'%' if self.printed.percent else ''}"
        return f"{estimate(*ends, decimals)}{'%' if self.printed.percent else ''}"


def compare_with_papers(printed: Iterable[Printed], tidy: pandas.DataFrame, level: float = 0.95) -> list[Compared]:
    """This data's numbers beside the paper's, those that differ first and the farthest of them at the top.

    Numbers that this data does not have are left out.

    Args:
        printed: The papers' numbers.
        tidy: Tidy frame.
        level: Confidence level of each interval.
    """
    values = tidy[tidy["value"].notna()]
    present = {column: set(values[column].dropna().unique()) for column in ("dataset", "architecture", "defense")}
    undefended = tidy[tidy["defense"].isna()]
    compared = []
    for one in printed:
        if all(_possible(wanted, present[column]) for column, wanted in one.only.items() if column in present):
            item = _compared(one, tidy if one.with_defenses else undefended, level)
            compared += [] if item is None else [item]
    return sorted(compared, key=place)


def describe_papers(compared: Sequence[Compared]) -> str:
    """The papers' numbers in a caption, those that differ first; empty if there are none."""
    if not compared:
        return ""
    differing = [item for item in compared if item.agreement == "differs"]
    agreeing = [item for item in compared if item.agreement != "differs"]
    parts = []
    if differing:
        parts.append(f"Differs from the paper: {_listed(differing)}.")
    if agreeing:
        parts.append(f"{'In agreement with it' if differing else 'The paper'}: {_listed(agreeing)}.")
    return " " + " ".join(parts)


def _listed(compared: Sequence[Compared]) -> str:
    texts = [f"{item.printed.what}: {item.paper_text} in the paper, {item.here_text} here"
             for item in compared[:MOST_IN_CAPTION]]  # fmt: skip
    more = len(compared) - MOST_IN_CAPTION
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def _possible(wanted: tuple[str | None, ...], there: set[str]) -> bool:
    """Whether any of some values occurs: most numbers are about data that a study does not have."""
    return None in wanted or not there.isdisjoint(wanted)


def _compared(printed: Printed, tidy: pandas.DataFrame, level: float) -> Compared | None:
    try:
        wide = select_rows(tidy, printed.quantities, only=printed.only, with_defenses=True, prepare=printed.prepare)
    except NoCases:
        return None
    here = printed.test(wide, level).estimate
    if not here.resolved:
        return None
    return Compared(printed, here, _agreement(printed, here))


def _agreement(printed: Printed, here: Estimate) -> Agreement:
    close = printed.half_unit + 1e-9
    if abs(here.value - printed.value) <= close:
        return "agrees"
    if not (np.isfinite(here.low) and np.isfinite(here.high)):
        return "differs" if here.n > 1 else "no interval"
    return "agrees" if here.low - close <= printed.value <= here.high + close else "differs"


def place(item: Compared) -> tuple[int, float]:
    """Those that differ first, and counts, which only say how much of the paper's data is there, after the others."""
    order = {"differs": 0, "no interval": 2, "agrees": 3}[item.agreement]
    return order + (order == 0 and item.printed.estimand.startswith("count")), -_distance(item)


def _distance(item: Compared) -> float:
    """How far apart the numbers are, in units that make correlations, shares and seconds comparable."""
    return abs(item.difference) / max(abs(item.printed.value), abs(item.here.value), 1e-9)


def _text(value: float, printed: Printed) -> str:
    if printed.percent:
        return f"{number(100 * value, max(printed.decimals - 2, 0))}%"
    return number(value, printed.decimals)
