"""Violins: the distribution of a quantity in each group, with its points, mean and interval."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas
import scipy
from numpy.typing import NDArray

from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Chart
from securitynet.analysis.frames import Quantity

WIDTH, HEIGHT = 110, 300
"""Width of a group, and height of the figure, in pixels."""

FEWEST = 5
"""Fewer models than this have no distribution to draw: their points say it all."""

HALF = 0.42
_STEPS = 80


def estimate_density(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaussian kernel estimate (Scott's bandwidth) between the extremes; empty where there are too few values.

    Args:
        values: N values.

    Returns:
        Places and densities, the largest of which is 1.
    """
    if len(values) < FEWEST or np.ptp(values) == 0:
        return np.empty(0), np.empty(0)
    places = np.linspace(values.min(), values.max(), _STEPS)
    heights = scipy.stats.gaussian_kde(values)(places)
    return places, heights / heights.max()


def draw(rows: pandas.DataFrame, table: pandas.DataFrame, name: str, quantity: Quantity) -> Chart:
    """A violin for each group, its points scattered inside.

    Args:
        rows: One row per case, with columns ``_group`` and ``_aside`` (in [-1, 1]) and that of the quantity.
        table: Mean of each group with its interval, as `securitynet.analysis.figures.groups.summarise_groups` makes it.
        name: Column of the quantity.
        quantity: The quantity.
    """
    order = sorted(rows["_group"].unique(), key=lambda group: (group == "others", str(group)))
    places = {group: number for number, group in enumerate(order)}
    outlines = []
    for group, part in rows.groupby("_group", sort=True):
        at, heights = estimate_density(part[name].to_numpy(float))
        middle = places[group]
        outlines += [
            {"group": str(group), "at": y, "left": middle - HALF * h, "right": middle + HALF * h}
            for y, h in zip(at.tolist(), heights.tolist(), strict=True)
        ]
    names = " : ".join(f"datum.value == {number} ? {_quoted(group)}" for group, number in places.items()) + " : ''"
    x_axis = alt.Axis(values=list(places.values()), labelExpr=names, grid=False, ticks=False, labelLimit=WIDTH)
    x_scale = alt.Scale(domain=[-0.6, len(order) - 0.4], nice=False)
    y_scale = alt.Scale(zero=False, nice=False, padding=8)
    y_axis = alt.Axis(format="~%" if quantity.unit in ("share", "points") else "~g", tickCount=6)

    def across(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=None, scale=x_scale, axis=x_axis)

    def up(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=quantity.label, scale=y_scale, axis=y_axis)

    shapes = alt.Chart(pandas.DataFrame(outlines, columns=["group", "at", "left", "right"]))
    rows = rows.assign(_x=rows["_group"].map(places).astype(float) + 0.12 * rows["_aside"])
    table = table.assign(_x=table["_group"].map(places))
    summary = alt.Chart(table)
    return alt.layer(
        shapes.mark_area(orient="horizontal", opacity=0.25, color=style.choose_ink(0).light).encode(
            across("left"), up("at"), x2="right:Q", detail="group:N"
        ),
        alt.Chart(rows)
        .mark_point(filled=True, size=16, opacity=0.5, color=style.choose_ink(0).light)
        .encode(across("_x"), up(name), tooltip=["model:N", "dataset:N", f"{name}:Q"]),
        summary.mark_rule(strokeWidth=2.5, color=style.TEXT.light).encode(across("_x"), up("low"), y2="high:Q"),
        summary.mark_point(
            filled=True, shape="diamond", size=90, color=style.TEXT.light, stroke="white", strokeWidth=1
        ).encode(across("_x"), up("mean")),
    ).properties(width=WIDTH * len(order), height=HEIGHT)


def _quoted(text: object) -> str:
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
