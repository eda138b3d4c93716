"""Counts of models by their annotations, by purpose: the composition of a catalog (SecurityNet, Figure 1)."""

from __future__ import annotations

import altair as alt
import pandas

from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.analysis.figures.texts import write_count as plural
from securitynet.catalog.stats import FIGURE_1, count_entries

MOST_BARS = 12
WIDTH, ROW = 210, 15


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """One panel per code, with bars by purpose; the rarest values are combined.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    models = tidy.drop_duplicates("case")
    models = models.assign(task_type="classification", countries=models["countries"].map(_listed))
    counted = count_entries(models)
    panels, drawn = [], []
    purposes = list(counted.purposes)
    for code, title in FIGURE_1.items():
        table = counted.counts[code]
        if table.empty:
            continue
        if code != "year" and len(table) > MOST_BARS:
            rest = table.iloc[MOST_BARS - 1 :]
            others = {"value": f"{len(rest)} others", **rest.drop(columns="value").sum().to_dict()}
            table = pandas.concat([table.iloc[: MOST_BARS - 1], pandas.DataFrame([others])])
        table = table.rename(columns={"value": "group"}).astype({"group": str})
        long = table.melt("group", [p for p in purposes if p in table], "purpose", "models")
        drawn.append(long.assign(code=code))
        panels.append(_panel(long, title, purposes, list(table["group"])))
    columns = 2
    rows = [alt.hconcat(*panels[start : start + columns], spacing=30) for start in range(0, len(panels), columns)]
    shares = ", ".join(f"{count:,} {purpose}" for purpose, count in counted.purposes.items())
    known = "; ".join(f"{title.lower()} {counted.known[code]:.0%}" for code, title in FIGURE_1.items())
    caption = (
        f"{figure.title}: {plural(counted.total, 'model')} ({shares}). Known for: {known}. A model with several "
        "countries counts for each."
    )
    return Drawn(style.style_chart(alt.vconcat(*rows, spacing=24)), caption, pandas.concat(drawn))


def _panel(long: pandas.DataFrame, title: str, purposes: list[str], order: list[str]) -> alt.Chart:
    inks = [style.choose_ink(number).light for number in range(len(purposes))]
    panel: alt.Chart = (
        alt.Chart(
            long, title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal", color=style.TEXT.light)
        )
        .mark_bar()
        .encode(
            y=alt.Y("group:N", sort=order, title=None, axis=alt.Axis(labelLimit=130)),
            x=alt.X(
                "models:Q",
                title=None,
                axis=alt.Axis(tickCount=4, format="~d", labelExpr="datum.value % 1 ? '' : datum.label"),
            ),
            color=alt.Color(
                "purpose:N", scale=alt.Scale(domain=purposes, range=inks), legend=alt.Legend(symbolType="square")
            ),
            order=alt.Order("purpose:N"),
        )
        .properties(width=WIDTH, height=alt.Step(ROW))
    )
    return panel


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
