"""Accuracy over epsilon: the accuracy that remains at each perturbation budget, one line per attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from securitynet.analysis.figures import groups, style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.texts import estimate, write_count
from securitynet.metrics.evasion import ROBUST_ACCURACY, write_epsilon
from securitynet.records import Measurement

MEASURE = ROBUST_ACCURACY


def tabulate_epsilons(measurements: Sequence[Measurement], line: str, measure: str = MEASURE) -> pd.DataFrame:
    """One row for each epsilon, ascending: ``line``, ``epsilon``, ``value``, ``low``, ``high``.

    Args:
        measurements: Of one trial of evasion; those of single surrogates are skipped.
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


def draw_evasion_chart(
    trials: Mapping[str, Sequence[Measurement]],
    *,
    measure: str = MEASURE,
    width: int = 420,
    height: int = 280,
    legend: bool = True,
) -> alt.TopLevelMixin:
    """The figure: one line per attack, with the interval as a band; epsilon on a logarithmic scale.

    Args:
        trials: Measurements of each attack, by its name in the figure. Norms should be the same.
        measure: ``robust-accuracy``, ``success`` or ``accuracy-drop``.
        width: Of the plot, in pixels.
        height: Likewise.
        legend: Whether lines are named in the picture.

    Raises:
        ValueError: If there is nothing to draw.
    """
    data = pd.concat([tabulate_epsilons(frame, name, measure) for name, frame in trials.items()], ignore_index=True)
    if data.empty:
        raise ValueError(f"no measurement is a {measure} at some epsilon")
    return _drawn(data, measure, width, height, legend=legend)


def _drawn(data: pd.DataFrame, measure: str, width: int, height: int, *, legend: bool) -> alt.TopLevelMixin:
    names = list(dict.fromkeys(data["line"]))
    colours = alt.Scale(domain=names, range=[style.choose_ink(number).light for number in range(len(names))])
    dashes = alt.Scale(domain=names, range=[list(style.choose_dash(number)) for number in range(len(names))])
    title = measure.replace("-", " ").capitalize()
    ticks = sorted(set(data["epsilon"]))
    x = alt.X(
        "epsilon:Q",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(title="ε", values=ticks, labelExpr=_labels(ticks)),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1], clamp=True), axis=alt.Axis(title=title, format=".0%"))
    shown = alt.Legend(symbolOpacity=1) if legend else None  # it would be as faint as the bands
    base = alt.Chart(data).encode(x=x, color=alt.Color("line:N", scale=colours, legend=shown))
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", scale=alt.Scale(domain=[0, 1])), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=alt.StrokeDash("line:N", scale=dashes, legend=shown))
    marks = base.mark_point(filled=True, size=40).encode(y=y)
    return style.style_chart(alt.layer(band, lines, marks).properties(width=width, height=height))


def draw(wide: pd.DataFrame, tidy: pd.DataFrame, figure: Figure) -> Drawn:
    """Mean accuracy under attack over models by epsilon, one line per attack, with a band for the mean's interval.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.

    Raises:
        MissingData: If no attack was measured at two epsilons.
    """
    long = _robust(tidy)
    if long.empty:
        raise MissingData(figure.name, list_lacking(tidy))
    table = groups.average_along(long, "line", "epsilon").rename(columns={"mean": "value"})
    sentences = []
    for line, part in table.groupby("line", sort=True):
        first, last = part.iloc[0], part.iloc[-1]
        sentences.append(
            f"{line!s}: {estimate(first['value'], first['low'], first['high'])} at {write_epsilon(first['epsilon'])}, "
            f"{estimate(last['value'], last['low'], last['high'])} at {write_epsilon(last['epsilon'])}, n = {last['n']}"
        )
    caption = (
        f"{figure.title}: share of images that are still classified correctly at every ε up to the one named, mean "
        f"over {write_count(long['case'].nunique(), 'model')} with its 95% interval. "
        f"{'; '.join(sentences)}."
    )
    return Drawn(_drawn(table, MEASURE, 420, 280, legend=True), caption, long, table)


def list_lacking(tidy: pd.DataFrame) -> list[str]:
    """What a frame lacks for the figure of several models."""
    return [] if len(_robust(tidy)) else ["accuracy under an evasion attack at two epsilons or more"]


def _robust(tidy: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracies with columns ``line`` and ``epsilon``, of attacks with two epsilons or more."""
    rows = tidy[(tidy["attack"] == "evasion") & (tidy["measure"] == MEASURE) & tidy["value"].notna()]
    epsilon = rows["at"].astype(object).fillna("").astype(str).str.extract(r"^epsilon=([0-9.e-]+)$")[0]
    known = epsilon.notna()
    rows = rows[known].assign(epsilon=epsilon[known].astype(float))
    l2 = rows["settings"].astype(str).str.contains('"norm": "l2"', regex=False)
    rows = rows.assign(line=rows["method"].astype(str).where(~l2, rows["method"].astype(str) + ", l2"))
    lines = set(rows["line"].value_counts().index[: len(style.SERIES)])
    return rows[rows["line"].isin(lines) & (rows.groupby("line")["epsilon"].transform("nunique") > 1)]


def _labels(ticks: Sequence[float]) -> str:
    """Labels of the ticks as in the names of measurements: the drawing library would round some of them."""
    cases = [f"datum.value == {tick!r} ? '{write_epsilon(tick)}'" for tick in ticks]
    return " : ".join([*cases, "''"])
