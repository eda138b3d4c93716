"""ROC curves, in linear and in log-log scale, from the metrics' own curves.

Between two thresholds a linear plot draws a straight line, which is what the AUC measures: it counts a tie as one half.
The log-log plot draws steps, in line with the definition of TPR at an FPR: the best threshold whose FPR does not
exceed the bound (Carlini et al., 2022, section 3). It begins at the lowest FPR that the non-members resolve, and a band
shows the interval of each TPR, from the order statistics of the non-members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from securitynet.analysis.figures import style
from securitynet.analysis.figures.roc_lines import RocLine, read_tpr_at, thin_curve

BAND_POINTS = 40
"""FPRs at which a band is computed."""

Scale = Literal["linear", "log"]


def tabulate_curves(lines: Mapping[str, RocLine], keep: Sequence[float] = ()) -> pd.DataFrame:
    """The points to draw, one row each: ``line``, ``fpr``, ``tpr`` and ``order`` along the curve."""
    parts = []
    for name, line in lines.items():
        chosen = thin_curve(line.curve, keep)
        part = pd.DataFrame({"line": name, "fpr": line.curve.fpr[chosen], "tpr": line.curve.tpr[chosen]})
        parts.append(part.assign(order=np.arange(len(part))))
    return pd.concat(parts, ignore_index=True)


def log_frame(points: pd.DataFrame, lines: Mapping[str, RocLine], bottom: float) -> pd.DataFrame:
    """The points of a log-log plot: each line from the FPR on that it resolves, nothing below ``bottom``.

    A line begins with the step that holds there; a TPR of 0 is drawn at the lower edge.

    Args:
        points: From `tabulate_curves`.
        lines: The same lines.
        bottom: Least true-positive rate that is drawn.
    """
    parts = []
    for name, line in lines.items():
        part = points[points["line"] == name]
        start = pd.DataFrame(
            {"line": [name], "fpr": [line.floor], "tpr": [read_tpr_at(line.curve, line.floor)], "order": [-1]}
        )
        part = pd.concat([start, part[part["fpr"] > line.floor]])
        parts.append(part.assign(tpr=part["tpr"].clip(lower=bottom)))
    return pd.concat(parts, ignore_index=True)


def tabulate_bands(lines: Mapping[str, RocLine], bottom: float) -> pd.DataFrame:
    """The bands of a log-log plot, one row each: ``line``, ``fpr``, ``low`` and ``high``.

    Args:
        lines: By name.
        bottom: Least true-positive rate that is drawn.
    """
    parts = []
    for name, line in lines.items():
        fprs = np.geomspace(line.floor, 1, BAND_POINTS + 1)[:-1]
        low, high = line.limits(fprs)
        parts.append(pd.DataFrame({"line": name, "fpr": fprs, "low": low.clip(bottom), "high": high.clip(bottom)}))
    return pd.concat(parts, ignore_index=True)


def draw_roc_chart(
    points: pd.DataFrame, lines: Mapping[str, RocLine], scale: Scale, *, legend: bool = True, size: int = 300
) -> alt.TopLevelMixin:
    """The figure.

    Args:
        points: From `tabulate_curves`.
        lines: The same lines.
        scale: Of both axes.
        legend: Whether to name the lines in the figure; a report names them once, beside it.
        size: Width and height of the plot, in pixels.
    """
    names = list(lines)
    shown = None if not legend else alt.Undefined
    colour = alt.Color(
        "line:N",
        scale=alt.Scale(domain=names, range=[style.choose_ink(line.ink).light for line in lines.values()]),
        legend=alt.Legend(symbolOpacity=1) if legend else None,  # it would be as faint as the bands
    )
    dash = alt.StrokeDash(
        "line:N",
        scale=alt.Scale(domain=names, range=[list(style.choose_dash(line.dash)) for line in lines.values()]),
        legend=shown,
    )
    if scale == "linear":
        low, ticks, form = 0.0, [0, 0.2, 0.4, 0.6, 0.8, 1], ".0%"
        data = points
    else:
        floor = min(line.floor for line in lines.values())
        low = floor / 2
        ticks = [10.0**exponent for exponent in range(int(np.ceil(np.log10(low))), 1)]
        form = "~%"
        data = log_frame(points, lines, low)

    def make_axis(kind: type[alt.X] | type[alt.Y], field: str, title: str) -> alt.X | alt.Y:
        domain = alt.Scale(type=scale, domain=[low, 1], nice=False)
        return kind(f"{field}:Q", title=title, scale=domain, axis=alt.Axis(values=ticks, format=form, grid=True))

    axes = [make_axis(alt.X, "fpr", "False-positive rate"), make_axis(alt.Y, "tpr", "True-positive rate")]
    curves = (
        alt.Chart(data)
        .mark_line(
            interpolate="linear" if scale == "linear" else "step-after", strokeWidth=2, clip=True, strokeJoin="round"
        )
        .encode(*axes, color=colour, strokeDash=dash, order="order:Q")
    )
    diagonal = (
        alt.Chart(pd.DataFrame({"fpr": [low, 1.0], "tpr": [low, 1.0]}))
        .mark_line(color=style.CHANCE.light, strokeWidth=1, strokeDash=[1, 3])
        .encode(*axes)
    )
    layers: list[alt.Chart] = [diagonal, curves]
    if scale == "log":
        bands = (
            alt.Chart(tabulate_bands(lines, low))
            .mark_area(opacity=0.14, clip=True)
            .encode(axes[0], make_axis(alt.Y, "low", "True-positive rate"), alt.Y2("high:Q"), color=colour)
        )
        layers = [*_unresolvable(axes, low, floor, size), bands, *layers]
    return style.style_chart(alt.LayerChart(layer=layers, width=size, height=size))


def _unresolvable(axes: list[alt.X | alt.Y], low: float, floor: float, size: int) -> list[alt.Chart]:
    """The strip of FPRs that the non-members do not resolve: none of them may lie above the threshold."""
    strip = pd.DataFrame({"fpr": [low], "to": [floor], "tpr": [low], "top": [1.0]})
    veil = alt.Chart(strip).mark_rect(color=style.VEIL.light, opacity=1).encode(axes[0], axes[1], x2="to:Q", y2="top:Q")
    label = (
        alt.Chart(strip.assign(text=f"below {floor:.2g}: not resolvable", fpr=(low * floor) ** 0.5, tpr=1.0))
        .mark_text(angle=270, align="right", baseline="middle", dx=-8, fontSize=10, color=style.CHANCE.light)
        .encode(axes[0], axes[1], text="text:N")
    )
    return [veil, label]
