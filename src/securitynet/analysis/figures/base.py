"""The declaration of a figure, which can be drawn from any frame that has its quantities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import altair as alt
import pandas

from securitynet.analysis import frames
from securitynet.analysis.figures.blind import describe_attribute_baseline, describe_blind_baseline
from securitynet.analysis.figures.texts import write_count
from securitynet.analysis.frames import Quantity
from securitynet.analysis.papers.every import describe_for
from securitynet.errors import ConfigurationError

FEWEST_CASES = 1

WITHOUT_BACKDOOR: Mapping[str, tuple[str | None, ...]] = {"backdoor": (None,)}
"""Restriction of the papers' figures: their models have no backdoor, as far as is known."""

Chart = alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure or a table that was made from data.

    Attributes:
        chart: To be written by `securitynet.analysis.figures.render`; None for a table.
        caption: What is shown, with n, intervals and tests.
        data: What is drawn, one row per mark; for a table, the table itself.
        statistics: Statistics of the data, one row per group.
    """

    chart: alt.TopLevelMixin | None
    caption: str
    data: pandas.DataFrame
    statistics: pandas.DataFrame = field(default_factory=pandas.DataFrame)


@dataclass(frozen=True, eq=False)
class Figure:
    """A declared figure or table.

    Attributes:
        name: For the command line.
        title: A few words.
        source: Where the paper shows it; ``new`` if no paper does.
        quantities: Name -> what is needed.
        draw: Makes it from a wide frame (`frames.widen` of the quantities), the tidy one, and the figure.
        restrict: Column -> values of the paper's figure, applied where the data has any of them.
        optional: Names of quantities that it can be drawn without.
        options: For ``draw``; and ``membership``, whether it shows membership inference without naming it among its
            quantities; ``each_attribute``, whether each inferred attribute is shown.
        check: Returns what a frame lacks besides quantities, in words.
    """

    name: str
    title: str
    source: str
    quantities: Mapping[str, Quantity]
    draw: Callable[[pandas.DataFrame, pandas.DataFrame, Figure], Drawn]
    restrict: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[pandas.DataFrame], list[str]] | None = None

    def missing(self, tidy: pandas.DataFrame) -> list[str]:
        """Labels of the quantities that no case has. Of several optional ones, at least one is required."""
        absent = {
            name: quantity.label
            for name, quantity in self.quantities.items()
            if len(frames.take(tidy, quantity)) < FEWEST_CASES
        }
        lacking = [label for name, label in absent.items() if name not in self.optional]
        shown = [name for name in self.optional if name not in self.options.get("controls", ())]
        if len(shown) > 1 and set(shown) <= absent.keys():
            lacking.append(f"any of: {' | '.join(absent[name] for name in shown)}")
        return [*lacking, *(self.check(tidy) if self.check else [])]

    def make(self, tidy: pandas.DataFrame) -> Drawn:
        """Draw the figure.

        Raises:
            MissingData: If a required quantity was measured on no case.
        """
        lacking = self.missing(tidy) or (["models that were measured"] if tidy.empty else [])
        if lacking:
            raise MissingData(self.name, lacking)
        restricted = self.restricted(tidy)
        shown = (
            replace(self, quantities=frames.split_by_attribute(restricted, self.quantities)) if self._splits else self
        )
        drawn = self.draw(frames.widen(restricted, dict(shown.quantities)), restricted, shown)
        membership = bool(self.options.get("membership"))
        measured = tuple(one for one in self.quantities.values() if len(frames.take(restricted, one)))
        blind = describe_blind_baseline(restricted, measured, drawn=membership)
        blind += describe_attribute_baseline(restricted, measured)
        notes = self._about(drawn) + self._absent(drawn) + self._backdoored(tidy, restricted)
        return replace(drawn, caption=drawn.caption + notes + blind + describe_for(self.name, tidy))

    def _about(self, drawn: Drawn) -> str:
        """The dataset of the models where there is one, and how many have a defense, unless the caption says it."""
        data = drawn.data
        names: list[str] = list(data["dataset"].dropna().astype(str).unique()) if "dataset" in data else []
        words = f" Dataset: {names[0]}." if len(names) == 1 and names[0] not in drawn.caption else ""
        if {"case", "defense"} <= set(data) and "defense" not in drawn.caption:
            defended = data.drop_duplicates("case")["defense"].notna()
            number, have = int(defended.sum()), "has" if defended.sum() == 1 else "have"
            words += f" {number} of {len(defended)} models {have} a defense." if 0 < number < len(defended) else ""
        return words

    def _absent(self, drawn: Drawn) -> str:
        """Which of the paper's datasets are not drawn, where others of them are."""
        wanted = self.restrict.get("dataset", ())
        there = set(drawn.data["dataset"]) if wanted and "dataset" in drawn.data else set()
        absent = [str(name) for name in wanted if name not in there]
        return f" Not drawn, for lack of data: {', '.join(absent)}." if absent and there.intersection(wanted) else ""

    def _backdoored(self, tidy: pandas.DataFrame, restricted: pandas.DataFrame) -> str:
        """How many targets are not drawn because they have a backdoor, where it would make a difference."""
        others = {column: values for column, values in self.restrict.items() if column != "backdoor"}
        rows = self._preferring(tidy, others)
        measured = set().union(*(frames.take(rows, quantity).index for quantity in self.quantities.values()))
        left_out = measured - set(restricted["case"])
        return f" {write_count(len(left_out), 'target')} with a backdoor left out." if left_out else ""

    @property
    def _splits(self) -> bool:
        """Whether each attribute has its own row or panel."""
        return bool(self.options.get("each_attribute"))

    def restricted(self, tidy: pandas.DataFrame) -> pandas.DataFrame:
        """The rows that the paper's figure is about, where there are any such and they have what is needed."""
        return self._preferring(tidy, self.restrict)

    def _preferring(self, tidy: pandas.DataFrame, restrict: Mapping[str, tuple[str | None, ...]]) -> pandas.DataFrame:
        needed = [quantity for name, quantity in self.quantities.items() if name not in self.optional]
        return frames.prefer_rows(tidy, restrict, needed, any_of=[self.quantities[name] for name in self.optional])


def need_both_purposes(*quantities: Quantity) -> Callable[[pandas.DataFrame], list[str]]:
    """A check that there are both benchmark and security models with all quantities."""

    def check(tidy: pandas.DataFrame) -> list[str]:
        cases = set(tidy["case"].unique())
        for quantity in quantities:
            cases &= set(frames.take(tidy, quantity).index)
        there = set(tidy.loc[tidy["case"].isin(cases), "purpose"].dropna())
        of = f" with {', '.join(quantity.label for quantity in quantities)}"
        return [
            f"{purpose} models{of if cases else ''}" for purpose in ("benchmark", "security") if purpose not in there
        ]

    return check


class MissingData(ConfigurationError):
    """A figure can't be drawn, because the data lacks a quantity."""

    def __init__(self, figure: str, lacking: list[str]) -> None:
        super().__init__(
            f"{figure} needs data that no model here has: {'; '.join(lacking)}.",
            hint="Run a study that measures it, or use other data with --from.",
        )
        self.lacking = lacking
