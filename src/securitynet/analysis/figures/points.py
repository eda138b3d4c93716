"""Points: two quantities of each model against each other, with the correlation of each group and of all."""

from __future__ import annotations

import itertools
import textwrap

import altair as alt
import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import clusters, frames, statistics
from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Chart, Drawn, Figure, MissingData
from securitynet.analysis.figures.texts import estimate, lower_text, write_p_value
from securitynet.analysis.frames import Quantity
from securitynet.analysis.quantities import TARGET_ACCURACY
from securitynet.analysis.simpson import describe_mixed_signs
from securitynet.catalog.compare import find_clusters

MOST_GROUPS = 6
MOST_INTERVALS = 40
"""Points of a panel that are drawn with their intervals; those of more would hide the points."""

OTHERS = "others"
WITHIN_GROUPS = "all, within groups"
"""Name of the correlation over all models, with the differences between groups taken away."""
POOLED = "all, pooled"
"""Name of the correlation over all models as they are, which differences between groups may make or reverse."""

WIDTH, HEIGHT = 420, 300
SMALL = (250, 210)
"""Width of a panel among several; three of them fill a page."""


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """A scatter plot.

    The first quantity is on the horizontal axis, and each further one has a panel of its own, unless ``pairs`` names
    the (x, y) of each panel. Options besides: ``untested``, names of quantities whose correlations are shown and not
    tested; ``colour``, a column (``dataset`` by default); ``diagonal``, whether a line of equality is drawn;
    ``panels``, a column (the same as ``colour``) of which each value has a panel with axes of its own; and
    ``controls``, names of quantities whose panels are left out where nothing was measured. Any other panel without data
    says so.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    first, *rest = figure.quantities
    declared = [
        (x, y)
        for pair in figure.options.get("pairs", [(first, y) for y in rest])
        for x, y in itertools.product(*(frames.list_split(figure.quantities, name) for name in pair))
    ]
    pairs = [pair for pair in declared if _both(wide, *pair)]
    if pairs and all(len(wide[[*pair]].dropna()) < 2 for pair in pairs):
        raise MissingData(figure.name, ["at least two models with both quantities (there is one)"])
    if not pairs:
        raise MissingData(
            figure.name, [f"two of: {', '.join(quantity.label for quantity in figure.quantities.values())}"]
        )
    colour = str(figure.options.get("colour", "dataset"))
    wide = wide[np.any([wide[x].notna() & wide[y].notna() for x, y in pairs], axis=0)]
    data = group_rare_values(add_purpose_clusters(wide, tidy) if colour == "cluster" else wide, colour)
    order = list(data[colour].value_counts().index)
    if colour == "cluster":
        order = sorted(order)  # benchmark models, then clusters of security models by their accuracy
    order = [*[name for name in order if name != OTHERS], *[name for name in order if name == OTHERS]]
    estimates: list[dict[str, object]] = []
    panels: list[Chart] = []
    empty: list[str] = []
    for x_name, y_name in declared:
        x, y = figure.quantities[x_name], figure.quantities[y_name]
        if (x_name, y_name) not in pairs:
            if y_name not in figure.options.get("controls", ()):
                lacking = x if frames.take(tidy, x).empty else y
                panels.append(draw_empty_panel(x, y, frames.explain_absence(tidy, lacking)))
                empty.append(y.label)
            continue
        rows = data[data[x_name].notna() & data[y_name].notna()]
        made = correlate_groups(rows, x_name, y_name, colour, order, f"{y.label} against {lower_text(x.label)}")
        # An identity, or a control, is no hypothesis: it is shown, and does not count among those tested together.
        estimates += [{**row, "p": None} for row in made] if y_name in figure.options.get("untested", ()) else made
        diagonal = bool(figure.options.get("diagonal"))
        if figure.options.get("panels") == colour and len(order) > 1:
            panels += [
                draw_panel(
                    part, (x_name, x), (y_name, y), colour, order, diagonal=diagonal, size=SMALL, title=str(name)
                )
                for name in order
                if len(part := rows[rows[colour] == name])
            ]
            continue
        size = SMALL if len(declared) > 1 else (WIDTH, HEIGHT)
        panels.append(draw_panel(rows, (x_name, x), (y_name, y), colour, order, diagonal=diagonal, size=size))
    table = pandas.DataFrame(estimates)
    table["p_adjusted"] = statistics.adjust_p_values(list(table["p"].where(table["p"].notna(), None)))
    rows_of = [alt.hconcat(*panels[start : start + 3], spacing=24) for start in range(0, len(panels), 3)]
    chart = panels[0] if len(panels) == 1 else alt.vconcat(*rows_of, spacing=24)
    notes = f" Without data here: {'; '.join(empty)}." if empty else ""
    if any(shows_intervals(data[data[x].notna() & data[y].notna()], y) for x, y in pairs):
        notes += " Vertical lines: intervals of single models."
    missing = clusters.cluster_models(tidy).describe_missing() if colour == "cluster" else ""
    notes += f" {missing[0].upper()}{missing[1:]}." if missing else ""
    return Drawn(style.style_chart(chart), write_correlation_caption(figure, table) + notes, data, table)


def draw_empty_panel(x: Quantity, y: Quantity, why: str = "not measured on any model here") -> Chart:
    """A panel for quantities that no model has, which says so.

    Args:
        x: Quantity of the horizontal axis.
        y: Quantity of the vertical axis.
        why: What it says.
    """
    text = alt.Chart(pandas.DataFrame({"text": [why]})).mark_text(color=style.TEXT.light, fontSize=12)
    frame = alt.Axis(labels=False, ticks=False, grid=False)
    middle = alt.Scale(domain=[0, 1])
    return alt.layer(
        text.transform_calculate(x="0.5", y="0.5").encode(
            alt.X("x:Q", title=x.label, axis=frame, scale=middle),
            alt.Y("y:Q", title=wrap_title(y.label, SMALL[1]), axis=frame, scale=middle),
            text="text:N",
        )
    ).properties(width=SMALL[0], height=SMALL[1])


def add_purpose_clusters(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """The frame with a column ``cluster``: the purpose and, for security models, their cluster of accuracies."""
    accuracy = frames.take(tidy, TARGET_ACCURACY)["value"]
    wide = wide.assign(cluster=wide["purpose"].fillna("not known"), id=wide["case"])
    wide["_accuracy"] = wide["case"].map(accuracy)
    security = wide[(wide["purpose"] == "security") & wide["_accuracy"].notna()]
    groups, members = find_clusters(security, seed=0) if len(security) else ([], {})
    if len(groups) > 1:
        names = {n: f"security, around {100 * group.mean:.0f}%" for n, group in enumerate(groups)}
        wide["cluster"] = wide["case"].map({case: names[n] for case, n in members.items()}).fillna(wide["cluster"])
    return wide


def group_rare_values(wide: pandas.DataFrame, column: str) -> pandas.DataFrame:
    """Group the rare values of a column, so that at most six values remain."""
    values = wide[column].astype(object).where(wide[column].notna(), "not known").astype(str)
    frequent = values.value_counts().index
    shown = set(frequent if len(frequent) <= MOST_GROUPS else frequent[: MOST_GROUPS - 1])
    return wide.assign(**{column: values.where(values.isin(shown), OTHERS)})


def correlate_groups(
    rows: pandas.DataFrame, x: str, y: str, colour: str, order: list[str], panel_name: str
) -> list[dict[str, object]]:
    """Pearson's and Spearman's correlation in each group, over all after subtracting the groups' means, and pooled.

    Where models of several datasets are in one group, its correlation is within datasets. The pooled one stands beside
    the others for comparison with what papers print, and is not tested.

    Args:
        rows: One row per case.
        x: Column of a quantity.
        y: Column of a quantity.
        colour: Column of the groups.
        order: The groups, in the order of the legend.
        panel_name: Title of the panel, for the result.
    """
    estimates: list[dict[str, object]] = []
    groups: list[tuple[str, pandas.DataFrame]] = [(name, rows[rows[colour] == name]) for name in order]
    if len(order) > 1:
        groups += [(WITHIN_GROUPS, rows), (POOLED, rows)]
    for name, part in groups:
        arguments = (part[x].to_numpy(float), part[y].to_numpy(float))
        clusters = part["family"].astype(str).to_numpy() if part["family"].notna().all() else None
        labels = None if name == POOLED else _strata(part, colour, together=name == WITHIN_GROUPS)
        pearson = statistics.estimate_correlation(*arguments, clusters=clusters, strata=labels)
        spearman = statistics.estimate_correlation(*arguments, kind="spearman", clusters=clusters, strata=labels)
        if pearson.resolved:
            estimates.append(
                {
                    "panel": panel_name, "group": name, "n": pearson.n, "families": pearson.clusters,
                    "r": pearson.value, "low": pearson.low, "high": pearson.high,
                    "p": None if name == POOLED else pearson.p,
                    "rho": spearman.value, "rho_low": spearman.low, "rho_high": spearman.high,
                    "method": pearson.method,
                }
            )  # fmt: skip
    columns = ["panel", "group", "n", "families", "r", "low", "high", "p", "rho", "rho_low", "rho_high", "method"]
    return estimates or [dict.fromkeys(columns) | {"panel": panel_name, "group": "all", "n": len(rows)}]


def _strata(part: pandas.DataFrame, colour: str, *, together: bool) -> NDArray[np.object_] | None:
    """What correlations are within: the group, if several are taken together, and the dataset, if there are several."""
    columns = [colour] if together else []
    if "dataset" in part and part["dataset"].nunique(dropna=False) > 1 and colour != "dataset":
        columns.append("dataset")
    if not columns:
        return None
    return part[columns].astype(str).agg(" / ".join, axis=1).to_numpy(object)


def draw_panel(
    rows: pandas.DataFrame,
    x: tuple[str, Quantity],
    y: tuple[str, Quantity],
    colour: str,
    order: list[str],
    *,
    diagonal: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    title: str = "",
) -> Chart:
    """One scatter plot; each group has its colour and its shape, and few points their vertical intervals.

    Args:
        rows: One row per case.
        x: Column and quantity of the horizontal axis.
        y: Column and quantity of the vertical axis.
        colour: Column of the groups.
        order: The groups, in the order of the legend.
        diagonal: Whether to draw the line of equal values.
        size: Width and height in pixels.
        title: Heading; empty for none.
    """
    scale = alt.Scale(zero=False, nice=False, padding=8)  # no point is cut by the edge
    axes = [
        alt.X(f"{x[0]}:Q", title=x[1].label, scale=scale, axis=make_axis(x[1], size[0] // 70)),
        alt.Y(f"{y[0]}:Q", title=wrap_title(y[1].label, size[1]), scale=scale, axis=make_axis(y[1])),
    ]
    shapes = ["circle", "diamond", "square", "triangle-up", "cross", "triangle-down"][: len(order)]
    inks = [style.choose_ink(number).light for number in range(len(order))]
    legend = alt.Legend(symbolType="circle", symbolSize=70) if len(order) > 1 else None
    ink = alt.Color(f"{colour}:N", scale=alt.Scale(domain=order, range=inks), sort=order, legend=legend)
    marks = (
        alt.Chart(rows)
        .mark_point(filled=True, size=34, opacity=0.75)
        .encode(
            *axes,
            color=ink,
            shape=alt.Shape(f"{colour}:N", scale=alt.Scale(domain=order, range=shapes), sort=order, legend=legend),
            tooltip=["model:N", "dataset:N", f"{x[0]}:Q", f"{y[0]}:Q"],
        )
    )
    layers: list[alt.Chart] = []
    low, high = f"{y[0]}_low", f"{y[0]}_high"
    if shows_intervals(rows, y[0]):
        spans = alt.Chart(rows[rows[low].notna() & rows[high].notna()]).mark_rule(opacity=0.35)
        layers.append(spans.encode(axes[0], alt.Y(f"{low}:Q", scale=scale), alt.Y2(f"{high}:Q"), color=ink))
    if y[1].chance is not None:
        level = alt.Chart(pandas.DataFrame({"chance": [y[1].chance]}))
        layers.append(level.mark_rule(strokeDash=[3, 3], color=style.CHANCE.light).encode(y="chance:Q"))
    if diagonal and len(rows):
        ends = [
            max(rows[x[0]].min(), rows[y[0]].min()),
            min(rows[x[0]].max(), rows[y[0]].max()),
        ]
        line = alt.Chart(pandas.DataFrame({x[0]: ends, y[0]: ends} if ends[0] < ends[1] else {x[0]: [], y[0]: []}))
        layers.append(line.mark_line(strokeDash=[3, 3], color=style.CHANCE.light).encode(x=f"{x[0]}:Q", y=f"{y[0]}:Q"))
    heading = {"title": alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal")} if title else {}
    return alt.layer(*layers, marks).properties(width=size[0], height=size[1], **heading)


def shows_intervals(rows: pandas.DataFrame, name: str) -> bool:
    """Whether a panel of these rows shows the interval of each value of a quantity."""
    return f"{name}_low" in rows and bool(rows[f"{name}_low"].notna().any()) and len(rows) <= MOST_INTERVALS


def wrap_title(label: str, length: int) -> list[str]:
    """A title of an axis in lines that are no longer than the axis.

    Args:
        label: The title.
        length: Of the axis, in pixels.
    """
    return textwrap.wrap(label, max(10, length // 6))


def make_axis(quantity: Quantity, ticks: int = 6) -> alt.Axis:
    """Shares are written as percentages."""
    return alt.Axis(format="~%" if quantity.unit in ("share", "points") else "~g", tickCount=ticks)


def write_correlation_caption(figure: Figure, table: pandas.DataFrame) -> str:
    """The caption, with each group's correlation."""
    several = table["panel"].nunique() > 1
    parts = [f"{figure.title}." if several else f"{figure.title}: {lower_text(str(table['panel'].iloc[0]))}."]
    for panel_name, rows in table.groupby("panel", sort=False):
        words = [
            f"{row['group']} {estimate(row['r'], row['low'], row['high'])}, n = {row['n']:.0f}"
            f"{write_p_value(row['p_adjusted'])}"
            for _, row in rows.iterrows()
            if row["r"] is not None and row["r"] == row["r"]
        ]
        if words:
            parts.append(f"{f'{panel_name}, ' if several else ''}Pearson's r with 95% interval: {'; '.join(words)}.")
            single = rows[~rows["group"].isin([WITHIN_GROUPS, POOLED])]
            pooled = rows.loc[rows["group"] == POOLED, "r"]
            mixed = describe_mixed_signs(
                zip(single["group"].astype(str), single["r"].astype(float), strict=True),
                float(pooled.iloc[0]) if len(pooled) else None,
            )
            parts += [mixed] if mixed else []
        else:
            most = int(rows["n"].max())
            why = "too few for a correlation"
            if most >= statistics.FEWEST:
                why = "no correlation, as a quantity does not vary or groups are too small"
            parts.append(f"{f'{panel_name}: ' if several else ''}n = {most}, {why}.")
    if table["method"].notna().any():
        parts.append(
            "Intervals: jackknife over architecture families where there are three or more, else over models or "
            "Fisher's, whichever is wider; p: from the jackknife over families, else by permutation, adjusted after "
            "Holm for the number of groups."
        )
    return " ".join(parts)


def _both(wide: pandas.DataFrame, x: str, y: str) -> bool:
    return bool((wide[x].notna() & wide[y].notna()).any())
