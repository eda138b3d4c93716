"""Accuracy over epsilon: how much of a model's accuracy is left at each budget of perturbation, one line an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from securitynet.analysis.figures import style
from securitynet.metrics.evasion import epsilon_text
from securitynet.records import Measurement

MEASURE = "robust-accuracy"


def points(measurements: Sequence[Measurement], line: str, measure: str = MEASURE) -> pd.DataFrame:
    """One row for each epsilon, ascending: ``line``, ``epsilon``, ``value``, ``low``, ``high``.

    Args:
        measurements: Of one trial of evasion; those of single surrogates are passed over.
        line: Its name in the figure.
        measure: Which is drawn.
    """
    rows = []
    for measurement in measurements:
        before, mark, epsilon = measurement.name.partition(f"{measure}@epsilon=")
        if mark and "surrogate-" not in before and measurement.value is not None:
            rows.append((line, float(epsilon), measurement.value, measurement.low, measurement.high))
    frame = pd.DataFrame(rows, columns=["line", "epsilon", "value", "low", "high"])
    return frame.sort_values("epsilon", kind="stable", ignore_index=True)


def chart(
    trials: Mapping[str, Sequence[Measurement]], *, measure: str = MEASURE, width: int = 420, height: int = 280
) -> alt.TopLevelMixin:
    """The figure: a line an attack, with the interval as a band; epsilon in logarithmic scale.

    Args:
        trials: Measurements of each attack, by its name in the figure. Norms should be the same.
        measure: ``robust-accuracy``, ``success`` or ``accuracy-drop``.
        width: Of the plot, in pixels.
        height: Likewise.

    Raises:
        ValueError: If there is nothing to draw.
    """
    data = pd.concat([points(found, name, measure) for name, found in trials.items()], ignore_index=True)
    if data.empty:
        raise ValueError(f"no measurement is a {measure} at some epsilon")
    names = list(trials)
    colours = alt.Scale(domain=names, range=[style.ink(number).light for number in range(len(names))])
    dashes = alt.Scale(domain=names, range=[list(style.dash(number)) for number in range(len(names))])
    title = measure.replace("-", " ").capitalize()
    ticks = sorted(set(data["epsilon"]))
    x = alt.X(
        "epsilon:Q",
        scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False),
        axis=alt.Axis(title="ε", values=ticks, labelExpr=_labels(ticks)),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1], clamp=True), axis=alt.Axis(title=title, format=".0%"))
    base = alt.Chart(data).encode(x=x, color=alt.Color("line:N", scale=colours))
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", scale=alt.Scale(domain=[0, 1])), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=alt.StrokeDash("line:N", scale=dashes))
    marks = base.mark_point(filled=True, size=40).encode(y=y)
    return style.styled(alt.layer(band, lines, marks).properties(width=width, height=height))


def _labels(ticks: Sequence[float]) -> str:
    """Each tick as it stands in the names of measurements: the drawing library would round some away."""
    cases = [f"datum.value == {tick!r} ? '{epsilon_text(tick)}'" for tick in ticks]
    return " : ".join([*cases, "''"])
