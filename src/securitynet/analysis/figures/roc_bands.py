"""ROC curves over a population of targets: the median and the middle half of their true-positive rates, log-log."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas

from securitynet.analysis.figures import points, style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.texts import number

WIDTH, HEIGHT = 420, 320
LEAST_RATE = 1e-4
"""A true-positive rate of 0 has no place on a logarithmic axis, and is drawn here."""


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """One line a membership attack: the median over targets of its TPR at each FPR that was measured, with a band.

    Rates that too few non-members resolve have no value, and are not there.
    """
    long = _rates(tidy)
    if long.empty:
        raise MissingData(figure.name, lacking(tidy))
    long = points.grouped(long.assign(method=_named(long)), "method")
    found = []
    for (method, fpr), part in long.groupby(["method", "fpr"], sort=True):
        low, middle, high = np.quantile(part["value"].to_numpy(float), [0.25, 0.5, 0.75])
        found.append({"method": method, "fpr": fpr, "median": middle, "low": low, "high": high, "n": len(part)})
    table = pandas.DataFrame(found)
    shown = table.assign(**{name: table[name].clip(lower=LEAST_RATE) for name in ("median", "low", "high")})
    order = sorted(table["method"].unique())
    inks = alt.Scale(domain=order, range=[style.ink(n).light for n in range(len(order))])
    dashes = alt.Scale(domain=order, range=[list(style.dash(n)) for n in range(len(order))])
    log = alt.Scale(type="log", nice=False)
    base = alt.Chart(shown).encode(
        x=alt.X("fpr:Q", title="False-positive rate", scale=log, axis=alt.Axis(format="~%", tickCount=4)),
    )
    title = alt.Y("median:Q", title="True-positive rate", scale=log, axis=alt.Axis(format="~%", tickCount=4))
    bands = base.mark_area(opacity=0.14).encode(
        alt.Color("method:N", scale=inks, sort=order), alt.Y("low:Q", scale=log), alt.Y2("high:Q")
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=34)).encode(
        title,
        color=alt.Color("method:N", scale=inks, sort=order),
        strokeDash=alt.StrokeDash("method:N", scale=dashes, sort=order),
    )
    ends = [float(table["fpr"].min()), float(table["fpr"].max())]
    guess = alt.Chart(pandas.DataFrame({"fpr": ends, "median": ends}))
    guessing = guess.mark_line(strokeDash=[2, 3], color=style.CHANCE.light).encode(x="fpr:Q", y="median:Q")
    least = table["fpr"].min()
    said = "; ".join(
        f"{row['method']} {number(row['median'])} ({number(row['low'])} to {number(row['high'])}, n = {row['n']})"
        for _, row in table[table["fpr"] == least].iterrows()
    )
    measured = ", ".join(f"{rate:g}" for rate in sorted(table["fpr"].unique()))
    caption = (
        f"{figure.title}: {long['case'].nunique():,} targets. Lines: medians over targets; bands: the middle half of "
        f"them; dotted: guessing. Rates were measured at false-positive rates of {measured}. At {least:g}: {said}. "
        f"Rates below {LEAST_RATE:g} are drawn there."
    )
    chart = alt.layer(guessing, bands, lines).properties(width=WIDTH, height=HEIGHT)
    return Drawn(style.styled(chart), caption, long, table)


def _named(long: pandas.DataFrame) -> pandas.Series:
    """Methods, with the auxiliary data where one was run with several: those are different adversaries."""
    kinds = long.groupby("method")["auxiliary"].transform("nunique")
    return long["method"].where(kinds < 2, long["method"] + ", " + long["auxiliary"].astype(str))


def lacking(tidy: pandas.DataFrame) -> list[str]:
    """What a frame lacks for this figure."""
    return [] if len(_rates(tidy)) else ["true-positive rates of membership attacks at low false-positive rates"]


def _rates(tidy: pandas.DataFrame) -> pandas.DataFrame:
    fpr = tidy["at"].astype(object).fillna("").astype(str).str.extract(r"^fpr=([0-9.e-]+)$")[0]
    chosen = (tidy["attack"] == "membership") & (tidy["measure"] == "tpr") & fpr.notna() & tidy["value"].notna()
    found = tidy[chosen].assign(fpr=fpr[chosen].astype(float))
    return found[found["fpr"] > 0]
