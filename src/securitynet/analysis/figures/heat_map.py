"""Risks of models: one row per model, one column per attack that was run."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas

from securitynet.analysis import frames
from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.defenses import name_models
from securitynet.analysis.figures.texts import write_count
from securitynet.analysis.frames import Quantity

MOST_MODELS = 60
MOST_ATTACKS = 16

_MEASURES: dict[str, tuple[str, ...]] = {
    "membership": ("auc",),
    "stealing": ("agreement", "accuracy"),
    "inversion": ("accuracy",),
    "attribute": ("gain", "accuracy"),
    "evasion": ("accuracy-drop",),
}
"""Measure of each family; higher is worse for the model's owner."""

_EPSILON = "epsilon=0.03"
"""Where evasion is measured at several, the one that all papers' defaults share."""


def choose_quantities(tidy: pandas.DataFrame) -> dict[str, Quantity]:
    """A quantity for each attack and threat model that was measured, families in order, most measured first."""
    # Not all columns: a study has a million rows.
    known = tidy.loc[tidy["value"].notna(), ["attack", "method", "auxiliary", "surrogate", "settings", "measure", "at",
                                             "value"]]  # fmt: skip
    quantities: dict[str, Quantity] = {}
    for family, measures in _MEASURES.items():
        rows = known[(known["attack"] == family) & known["measure"].isin(measures)]
        at = rows["at"].isna() if family != "evasion" else rows["at"] == _EPSILON
        rows = rows[at & ((rows["surrogate"] != "larger") | (family != "stealing"))]
        ways = rows.assign(
            method=rows["method"].where(rows["method"].notna(), family), auxiliary=rows["auxiliary"].fillna("")
        )
        for (method, auxiliary), part in sorted(ways.groupby(["method", "auxiliary"]), key=lambda way: -len(way[1])):
            measure = next(name for name in measures if (part["measure"] == name).any())
            several = ways[ways["method"] == method]["auxiliary"].nunique() > 1
            condition = f" ({auxiliary})" if several and auxiliary else ""
            label = f"{method}{condition}: {_WORDS[measure]}"
            where: dict[str, tuple[str | None, ...]] = {
                "attack": (family,),
                "method": (None if method == family else str(method),),
                "auxiliary": (str(auxiliary) or None,),
                "at": (_EPSILON if family == "evasion" else None,),
            }
            quantities[f"risk{len(quantities)}"] = Quantity(label, (measure,), where, "plain")
    return dict(list(frames.split_by_attribute(known, quantities).items())[:MOST_ATTACKS])


_WORDS = {"auc": "AUC", "agreement": "agreement", "accuracy": "accuracy", "gain": "accuracy gain",
          "accuracy-drop": "accuracy drop at ε = 0.03"}  # fmt: skip


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Models × attacks, for models with at least half of the measures; colours show the distance from chance.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    quantities = choose_quantities(tidy)
    if not quantities:
        raise MissingData(figure.name, list_lacking(tidy))
    names = list(quantities)
    measured = frames.widen(tidy, quantities)
    rows = measured[measured[names].notna().sum(axis=1) >= max(len(names) / 2, 1)].copy()
    every = int(measured[names].notna().any(axis=1).sum())
    if rows.empty:  # attacks on different models: all of them, with gaps
        rows = measured[measured[names].notna().any(axis=1)].copy()
    distances = measure_distances_from_chance(rows, quantities)
    rows["_risk"] = distances.mean(axis=1)
    rows = rows.sort_values("_risk", ascending=False, kind="stable")
    total = len(rows)
    if total > MOST_MODELS:  # the ends, where a reader looks
        rows = pandas.concat([rows.head(MOST_MODELS // 2), rows.tail(MOST_MODELS // 2)])
    rows["_name"] = name_models(rows)
    long = rows.melt(["_name"], names, "attack", "value").assign(
        distance=distances.loc[rows.index].melt(value_name="distance")["distance"].to_numpy()
    )
    long = long[long["value"].notna()]
    long["attack"] = long["attack"].map({name: quantity.label for name, quantity in quantities.items()})
    x = alt.X("attack:N", sort=None, title=None, axis=alt.Axis(orient="top", labelAngle=-35, labelLimit=420))
    y = alt.Y("_name:N", sort=list(rows["_name"]), title=None, axis=alt.Axis(labelLimit=330))
    cells = (
        alt.Chart(long)
        .mark_rect()
        .encode(x=x, y=y, color=alt.Color("distance:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None))
    )
    values = alt.Chart(long).mark_text(fontSize=9).encode(
        x=x, y=y, text=alt.Text("value:Q", format=".2f"),
        color=alt.condition("datum.distance > 0.55", alt.value("#111111"), alt.value("#ffffff")),
    )  # fmt: skip
    chart = alt.layer(cells, values).properties(width=max(60 * len(names), 90), height=15 * len(rows))
    shown = f" (the first and the last {MOST_MODELS // 2} are shown)" if total > MOST_MODELS else ""
    fewer = (
        "" if total == every else f" Not listed: {every - total:,}, on which fewer than half of these were measured."
    )
    caption = (
        f"{figure.title}: {write_count(total, 'model')}, most at risk first{shown}. Numbers are the measurements; "
        "colours show how far each is from chance, on a scale from chance (dark) to certainty (bright): an AUC from "
        "0.5, an accuracy or agreement over the dataset's classes from one in their number, where it is known, and "
        "others from zero. Order: the mean "
        f"distance. Empty: not measured. A small distance need not be beyond chance.{fewer}"
    )
    return Drawn(style.style_chart(chart), caption, long)


def measure_distances_from_chance(rows: pandas.DataFrame, quantities: Mapping[str, Quantity]) -> pandas.DataFrame:
    """How far each measurement is from chance: 0 at chance or below, 1 for certainty.

    Args:
        rows: One row per model, with a column for each quantity, and ``classes`` where it is known.
        quantities: Column -> quantity.
    """
    classes = pandas.to_numeric(rows["classes"], errors="coerce") if "classes" in rows else pandas.Series(dtype=float)
    one_in_classes = (1 / classes).reindex(rows.index).fillna(0.0)
    distances = {}
    for name, quantity in quantities.items():
        of_classes = quantity.where.get("attack") in (("stealing",), ("inversion",))
        chance = 0.5 if "auc" in quantity.measure else one_in_classes if of_classes else 0.0
        distances[name] = ((rows[name].astype(float) - chance) / (1 - chance)).clip(0, 1)
    return pandas.DataFrame(distances, index=rows.index)


def list_lacking(tidy: pandas.DataFrame) -> list[str]:
    """What a frame lacks for this figure."""
    return [] if choose_quantities(tidy) else ["measurements of attacks"]
