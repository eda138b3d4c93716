"""ROC curves over a population of targets: the median and the middle half of their true-positive rates, log-log."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis.figures import points, style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.texts import number, write_count
from securitynet.analysis.study_frames import CURVE_MEASURE

WIDTH, HEIGHT = 420, 320
FLOOR = 0.2
"""A logarithmic axis can't show a true-positive rate of 0: rates below this share of the least false-positive rate
are drawn at it."""
LOW = 0.1
"""A true-positive rate of 0 at this false-positive rate or a higher one is due to tied scores, not to a weak attack."""


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """One line per membership attack: the median over targets of its TPR at each FPR, with a band.

    From whole curves where the frame has them (`study_frames.from_study`), else from the rates that were measured.
    Rates that too few non-members resolve have no value, and are not there; nor are those that fewer than half of an
    attack's targets resolve, whose median would be of other targets.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    places, fprs = _find_rates(tidy)
    long = tidy.iloc[places].assign(fpr=fprs)
    if long.empty:
        raise MissingData(figure.name, list_lacking(tidy))
    long = points.group_rare_values(long.assign(method=_named(long)), "method")
    rows = []
    for (method, fpr), part in long.groupby(["method", "fpr"], sort=True)["value"]:
        low, middle, high = np.quantile(part.to_numpy(float), [0.25, 0.5, 0.75])
        rows.append({"method": method, "fpr": fpr, "median": middle, "low": low, "high": high, "n": len(part)})
    table = pandas.DataFrame(rows)
    table = table[table["n"] >= table.groupby("method")["n"].transform("max") / 2]
    table, steps = _without_steps(table)
    whole = (long["measure"] == CURVE_MEASURE).all()
    least = float(table["fpr"].min())
    floor = FLOOR * least
    shown = table.assign(**{name: table[name].clip(lower=floor) for name in ("median", "low", "high")})
    order = sorted(table["method"].unique())
    inks = alt.Scale(domain=order, range=[style.choose_ink(n).light for n in range(len(order))])
    dashes = alt.Scale(domain=order, range=[list(style.choose_dash(n)) for n in range(len(order))])
    log = alt.Scale(type="log", nice=False)
    tens = [10.0**power for power in range(math.floor(math.log10(floor)), 1)]
    axis = alt.Axis(format="~%", values=tens)
    base = alt.Chart(shown).encode(
        x=alt.X("fpr:Q", title="False-positive rate", scale=log, axis=axis),
    )
    title = alt.Y("median:Q", title="True-positive rate", scale=log, axis=axis)
    legend = alt.Legend(symbolOpacity=1, columns=3)  # it would be as faint as the bands
    bands = base.mark_area(opacity=0.14).encode(
        alt.Color("method:N", scale=inks, sort=order, legend=legend), alt.Y("low:Q", scale=log), alt.Y2("high:Q")
    )
    dots = alt.OverlayMarkDef(size=34) if not whole else False
    lines = base.mark_line(point=dots, strokeWidth=2).encode(
        title,
        color=alt.Color("method:N", scale=inks, sort=order, legend=legend),
        strokeDash=alt.StrokeDash("method:N", scale=dashes, sort=order, legend=legend),
    )
    ends = [float(table["fpr"].min()), float(table["fpr"].max())]
    guess = alt.Chart(pandas.DataFrame({"fpr": ends, "median": ends}))
    guessing = guess.mark_line(strokeDash=[2, 3], color=style.CHANCE.light).encode(x="fpr:Q", y="median:Q")
    sentence = "; ".join(
        f"{row['method']} {number(row['median'])} ({number(row['low'])} to {number(row['high'])}, n = {row['n']})"
        for _, row in table[table["fpr"] == least].iterrows()
    )
    rates = sorted(table["fpr"].unique())
    measured = (
        f"Each curve is taken at {len(rates)} false-positive rates from {least:.2g} on, those that its target resolves"
        if whole
        else f"Rates were measured at false-positive rates of {', '.join(f'{rate:g}' for rate in rates)}"
    )
    caption = (
        f"{figure.title}: {write_count(long['case'].nunique(), 'target')}. Lines: medians over "
        f"targets; bands: the middle half of them; grey: guessing. {measured}. At {least:.2g}: {sentence}. Rates below "
        f"{floor:.2g} are drawn there.{steps}"
    )
    chart = alt.layer(guessing, bands, lines).properties(width=WIDTH, height=HEIGHT)
    return Drawn(style.style_chart(chart), caption, long, table)


def _without_steps(table: pandas.DataFrame) -> tuple[pandas.DataFrame, str]:
    """The rows of the methods that have a point besides 100%, and a sentence on the others.

    A score of few values, such as whether the prediction is correct, has no threshold at low false-positive rates. Its
    line would lie at zero, as if the attack did worse than guessing. If there are no others, all are kept.
    """
    inside = table[table["fpr"] < 1].groupby("method").agg(rate=("fpr", "max"), median=("median", "max"))
    steps = sorted(inside.index[(inside["median"] == 0) & (inside["rate"] >= LOW)])
    rows = table[~table["method"].isin(steps)]
    if rows.empty or not steps:
        return table, ""
    return rows, f" Not drawn, since its scores take too few values for these rates: {', '.join(steps)}."


def _named(long: pandas.DataFrame) -> pandas.Series:
    """Methods, with the auxiliary data where one was run with several: those are different adversaries."""
    kinds = long.groupby("method")["auxiliary"].transform("nunique")
    return long["method"].where(kinds < 2, long["method"] + ", " + long["auxiliary"].astype(str))


def list_lacking(tidy: pandas.DataFrame) -> list[str]:
    """What a frame lacks for this figure."""
    return (
        [] if len(_find_rates(tidy)[0]) else ["true-positive rates of membership attacks at low false-positive rates"]
    )


def _find_rates(tidy: pandas.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Places of the rows with true-positive rates, of one kind, and their false-positive rates."""
    rates = tidy["measure"].isin((CURVE_MEASURE, "tpr"))
    places = np.flatnonzero(rates & (tidy["attack"] == "membership") & tidy["value"].notna())
    at = tidy["at"].iloc[places].astype(object).fillna("").astype(str)
    fpr = at.str.extract(r"^fpr=([0-9.e-]+)$")[0].to_numpy(float)
    whole = (tidy["measure"].iloc[places] == CURVE_MEASURE).to_numpy()
    of_kind = whole if whole[~np.isnan(fpr)].any() else ~whole
    chosen = of_kind & (fpr > 0)  # nowhere where it is unknown
    return places[chosen], fpr[chosen]
