"""Tidy frames: one row per measured value, with its model and how it was measured.

A *case* is one model under one condition of training (its defense, its epochs, its seed): what figures show as a point.
Frames come from the catalog or from a study's export, and have the same form; statistics and figures treat them alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas
from numpy.typing import NDArray

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog
    from securitynet.catalog.query import Query

ANNOTATIONS = (
    "purpose", "family", "architecture", "architecture_type", "dataset", "topic_category", "granularity", "classes",
    "training_size", "image_height", "parameters", "flops", "year", "venue", "venue_type", "countries",
    "affiliation_types", "authors",
)  # fmt: skip
"""Annotations of a model: codes of the catalog."""

CONDITIONS = ("defense", "setting", "epsilon", "teacher", "epochs", "seed", "backdoor")
"""Conditions that distinguish the cases of one model: the defense with its settings, the epsilon that it spent, the
architecture of its teacher; and the backdoor that it was trained with."""

HOW = ("attack", "method", "access", "auxiliary", "surrogate", "settings", "measure", "at")
"""How a value was measured: family, method, threat model, which surrogate (``usual`` or ``larger``), other settings
(JSON), measure and its ``key=value``."""

NUMBERS = ("value", "low", "high", "level", "n", "seconds")

COLUMNS = ("case", "model", *ANNOTATIONS, *CONDITIONS, *HOW, *NUMBERS)

_NUMBERS_OF_CASE = ("value", "low", "high", "n")
_WAY = ("method", "access", "auxiliary", "settings", "at")

_TARGET = {"accuracy.train": "train_accuracy", "accuracy.test": "test_accuracy", "accuracy.gap": "overfitting"}
_MEASURE = re.compile(r"(?P<measure>[^.@]+)(?:@(?P<at>[A-Za-z_-]+=.+))?$")


@dataclass(frozen=True)
class Quantity:
    """A number that a model has: how to select it from a tidy frame, and its name.

    Attributes:
        label: For an axis.
        measure: Names of the measure, the first that is there counts.
        where: Column -> allowed values; a column that is not named may hold anything.
        unit: How numbers are written.
        chance: What guessing gives.
        largest: Whether the largest counts where several ways were measured on a case; else the most common way does.
    """

    label: str
    measure: tuple[str, ...]
    where: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict, hash=False)
    unit: Literal["share", "points", "plain"] = "share"
    chance: float | None = None
    largest: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest possible mean."""
        return (0.0, 1.0) if self.unit == "share" else (-math.inf, math.inf)


def tidy(rows: Sequence[dict[str, Any]] | pandas.DataFrame) -> pandas.DataFrame:
    """A frame with all of `COLUMNS`, in that order; unknown values are missing."""
    frame = rows if isinstance(rows, pandas.DataFrame) else pandas.DataFrame(rows)
    frame = frame.reindex(columns=[*COLUMNS])
    # Without any number, as in intervals of published values, a column would hold None, which is no missing number.
    return frame.assign(**{name: pandas.to_numeric(frame[name]).astype(float) for name in NUMBERS})


def from_catalog(catalog: Catalog, query: Query | None = None) -> pandas.DataFrame:
    """All measured values of the catalog's entries. An entry without values has one row with its annotations."""
    from securitynet.catalog import frames

    query = query or catalog.query()
    entries = query.to_frame()
    values = frames.load_measured(catalog.database, query)
    how = pandas.DataFrame([parse_name(name) for name in values["name"]], index=values.index)
    values = pandas.concat([values, how], axis=1) if len(values) else values
    known = entries[["id", "name", *ANNOTATIONS]].rename(columns={"name": "model"})
    frame = known.merge(values.drop(columns=["name"]), how="left", on="id").rename(columns={"id": "case"})
    return tidy(frame)


def parse_name(name: str) -> dict[str, Any]:
    """How a value was measured, from the name of its measurement.

    ``stealing.knockoff@partial.agreement@budget=100`` and the catalog's ``stealing.surrogate=wrn-50.accuracy`` are
    both understood. What published tables leave unsaid, because it is the default of the paper, is left open.
    """
    if name in _TARGET:
        return _how("target", measure=_TARGET[name])
    match = _MEASURE.search(name)
    if match is None:
        return _how("other", measure=name)
    before = [part for part in name[: match.start()].split(".") if part]
    attack, rest = (before[0], before[1:]) if before else ("other", [])
    method = auxiliary = access = None
    settings: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if equals and key == "auxiliary":
            auxiliary = "out-of-distribution" if value == "imagenet" else value
        elif equals:
            settings[key] = value
        elif method is None:
            method, _, condition = part.partition("@")
            for box in ("white-box", "black-box"):
                if condition.startswith(box):
                    access, condition = box, condition[len(box) :].removeprefix("-")
            auxiliary = condition or auxiliary
        else:
            settings["of"] = part
    return _how(attack, method, access, auxiliary, settings, match["measure"], match["at"])


def take(frame: pandas.DataFrame, quantity: Quantity) -> pandas.DataFrame:
    """Values of a quantity: one row per case, with columns value, low, high, n; empty if nothing matches.

    Where several settings of a method were measured on one case, the one that most cases have counts, and of those the
    plainest; where that was measured with several seeds, the mean of the values and of the ends of their intervals.
    """
    columns = dict.fromkeys(("case", "measure", *_NUMBERS_OF_CASE, *_WAY, *quantity.where))
    # Each condition leaves fewer rows for the next: a study has a million, of which a quantity needs a thousand.
    chosen = frame.loc[frame["measure"].isin(quantity.measure), [*columns]]
    for column, values in quantity.where.items():
        chosen = chosen[match_values(chosen[column], values)]
    chosen = chosen[chosen["value"].notna()]
    for measure in quantity.measure:
        rows = chosen[chosen["measure"] == measure]
        if len(rows):
            break
    else:
        return chosen.iloc[:0].set_index("case")[[*_NUMBERS_OF_CASE]]
    if quantity.largest:
        rows = rows.sort_values("value", ascending=False, kind="stable").drop_duplicates("case")
    elif rows["case"].duplicated().any():
        ways = _describe_ways(rows)
        order = ways.map(ways.value_counts())
        rows = rows.assign(_way=ways, _order=order, _length=ways.str.len())
        rows = rows.sort_values(["_order", "_length"], ascending=[False, True], kind="stable")
        rows = rows[rows["_way"] == rows.groupby("case", sort=False)["_way"].transform("first")]
        return rows.groupby("case")[[*_NUMBERS_OF_CASE]].mean()
    return rows.set_index("case")[[*_NUMBERS_OF_CASE]].sort_index()


def explain_absence(frame: pandas.DataFrame, quantity: Quantity) -> str:
    """Why no case has a value of a quantity: it was not measured, or the attack was run and could not be judged."""
    chosen = frame[frame["measure"].isin(quantity.measure)]
    for column, values in quantity.where.items():
        chosen = chosen[match_values(chosen[column], values)]
    return "run, but it could not be judged" if len(chosen) else "not measured on any model here"


def list_absent(frame: pandas.DataFrame, quantities: Iterable[Quantity]) -> str:
    """The labels of quantities without a value, for a caption; where an attack was run, it says so."""
    reasons = [(quantity.label, explain_absence(frame, quantity)) for quantity in quantities]
    return "; ".join(label + (f" ({why})" if why.startswith("run") else "") for label, why in reasons)


def _describe_ways(rows: pandas.DataFrame) -> pandas.Series:
    """How each value was measured, as a text: there are few ways, however many rows."""
    numbers = rows.groupby([*_WAY], dropna=False, sort=False).ngroup()
    first = rows.loc[~numbers.duplicated(), [*_WAY]]
    texts = [repr(list(way)) for way in first.itertuples(index=False)]
    return pandas.Series(np.array(texts, object)[numbers.to_numpy()], index=rows.index)


def widen(frame: pandas.DataFrame, quantities: dict[str, Quantity]) -> pandas.DataFrame:
    """One row per case: model, annotations, conditions, quantities, and the ends of intervals (``_low``, ``_high``)."""
    known = frame.drop_duplicates("case").set_index("case")[["model", *ANNOTATIONS, *CONDITIONS]]
    for name, quantity in quantities.items():
        values = take(frame, quantity)
        known = known.join(
            values.rename(columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"}).drop(columns="n")
        )
    return known.reset_index()


def split_by_attribute(frame: pandas.DataFrame, quantities: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """Quantities, with one for each attribute in place of those of attribute inference, where several were inferred.

    Values of which no attribute is stated, such as those that a paper prints, have one of their own.

    Args:
        frame: Tidy frame.
        quantities: Name -> quantity.
    """
    inferred = frame.loc[(frame["attack"] == "attribute") & frame["value"].notna(), "settings"].dropna().unique()
    settings: dict[str, list[str]] = {}
    for text in inferred:
        settings.setdefault(str(json.loads(text).get("of") or ""), []).append(text)
    if len(settings) < 2:
        return dict(quantities)
    single: dict[str, Quantity] = {}
    for name, quantity in quantities.items():
        if quantity.where.get("attack") != ("attribute",):
            single[name] = quantity
            continue
        for number, (attribute, texts) in enumerate(sorted(settings.items())):
            where = {**quantity.where, "settings": tuple(texts)}
            label = f"{quantity.label}: {attribute}" if attribute else quantity.label
            single[f"{name}_{number}"] = replace(quantity, label=label, where=where)
    return single


def list_split(quantities: Mapping[str, Quantity], name: str) -> list[str]:
    """The names of the quantities that `split_by_attribute` has put in place of one; its own name if it has not.

    Args:
        quantities: Name -> quantity, from `split_by_attribute`.
        name: Name of a quantity before.
    """
    return [name] if name in quantities else [one for one in quantities if re.fullmatch(rf"{re.escape(name)}_\d+", one)]


def find_families(wide: pandas.DataFrame) -> NDArray[np.object_]:
    """What is left out as a whole in statistics: the family of each case, or its architecture, or the model itself.

    Args:
        wide: One row per case. Rows that are not used must have been dropped, as their families don't count.
    """
    known = wide["family"].astype(object)
    for column in ("architecture", "model", "case"):
        known = known.where(known.notna(), wide[column].astype(object))
    return known.astype(str).to_numpy(object)


def select_cases(frame: pandas.DataFrame, conditions: dict[str, Any]) -> pandas.DataFrame:
    """The rows of the cases whose annotations and conditions have these values, compared as text, ignoring case."""
    for column, value in conditions.items():
        allowed = {str(item).casefold() for item in (value if isinstance(value, (list, tuple, set)) else [value])}
        frame = frame[frame[column].map(lambda cell, allowed=allowed: str(cell).casefold() in allowed)]
    return frame


def prefer_rows(
    frame: pandas.DataFrame,
    restrict: Mapping[str, Sequence[str | None]],
    needed: Iterable[Quantity],
    any_of: Iterable[Quantity] = (),
) -> pandas.DataFrame:
    """The rows whose columns have certain values; a column is ignored if a needed quantity would be lost.

    Args:
        frame: Tidy frame.
        restrict: Column -> values.
        needed: Quantities that must have been measured on the remaining rows.
        any_of: Quantities of which one must have been, if there are any.
    """
    needed, any_of = list(needed), list(any_of)
    for column, values in restrict.items():
        inside = keep(frame, match_values(frame[column], values))
        enough = all(len(take(inside, quantity)) for quantity in needed)
        if len(inside) and enough and (not any_of or any(len(take(inside, quantity)) for quantity in any_of)):
            frame = inside
    return frame


def keep(frame: pandas.DataFrame, mask: pandas.Series) -> pandas.DataFrame:
    """The rows of a mask; the frame itself where that is all of them, since copying a million rows takes a second."""
    return frame if mask.all() else frame[mask]


def match_values(column: pandas.Series, values: Iterable[str | None]) -> pandas.Series:
    """Which rows have one of the values; None stands for a missing one.

    Args:
        column: A column of a frame.
        values: The values.
    """
    values = list(values)
    inside = column.isin([value for value in values if value is not None])
    return inside | column.isna() if None in values else inside


def _how(
    attack: str,
    method: str | None = None,
    access: str | None = None,
    auxiliary: str | None = None,
    settings: dict[str, str] | None = None,
    measure: str = "",
    at: str | None = None,
) -> dict[str, Any]:
    return {
        "attack": attack,
        "method": method,
        "access": access,
        "auxiliary": auxiliary,
        "surrogate": ("larger" if settings and "surrogate" in settings else "usual") if attack == "stealing" else None,
        "settings": json.dumps(settings or {}, sort_keys=True),
        "measure": measure,
        "at": at,
    }
