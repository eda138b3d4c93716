"""Model stealing by query budget: against the target's accuracy, and as curves with bands."""

from __future__ import annotations

import altair as alt
import pandas

from securitynet.analysis import frames, statistics
from securitynet.analysis.figures import groups, points, style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.texts import estimate
from securitynet.analysis.frames import Quantity

WIDTH, HEIGHT = 420, 300


def draw_points(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Stealing accuracy against the target's accuracy, one colour per budget (SecurityNet, Figure 19).

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    long = tabulate_by_budget(tidy, "accuracy", figure.name)
    target = figure.quantities["target"]
    accuracy = frames.take(tidy, target)["value"]
    long = long.assign(target=long["case"].map(accuracy)).dropna(subset=["target"])
    long["queries"] = long["budget"].map("{:,} queries".format)
    order = [f"{budget:,} queries" for budget in sorted(long["budget"].unique())][-points.MOST_GROUPS :]
    long = long[long["queries"].isin(order)]
    stealing = Quantity("Surrogate's test accuracy", ("accuracy",))
    table = pandas.DataFrame(points.correlate_groups(long, "target", "value", "queries", order, stealing.label))
    table["p_adjusted"] = statistics.adjust_p_values(list(table["p"].where(table["p"].notna(), None)))
    chart = points.draw_panel(long, ("target", target), ("value", stealing), "queries", order)
    return Drawn(style.style_chart(chart), points.write_correlation_caption(figure, table), long, table)


def draw_curves(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Mean agreement by budget, with a band for its interval over models, one line per method.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    long = points.group_rare_values(tabulate_by_budget(tidy, "agreement", figure.name), "method")
    table = groups.average_along(long, "method", "budget")
    order = sorted(table["method"].unique())
    scale = alt.Scale(domain=order, range=[style.choose_ink(number).light for number in range(len(order))])
    dashes = alt.Scale(domain=order, range=[list(style.choose_dash(number)) for number in range(len(order))])
    base = alt.Chart(table).encode(
        x=alt.X(
            "budget:Q", title="Queries", scale=alt.Scale(type="log", nice=False, padding=10), axis=alt.Axis(format="~s")
        ),
    )
    share = alt.Axis(format="~%")
    legend = alt.Legend(symbolOpacity=1)  # which else would be as faint as the bands
    bands = base.mark_area(opacity=0.16).encode(
        alt.Color("method:N", scale=scale, sort=order, legend=legend),
        alt.Y("low:Q", title="Agreement", axis=share),
        alt.Y2("high:Q"),
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(
        alt.Y("mean:Q", axis=share, scale=alt.Scale(zero=False)),
        color=alt.Color("method:N", scale=scale, sort=order, legend=legend),
        strokeDash=alt.StrokeDash("method:N", scale=dashes, sort=order, legend=legend),
    )
    sentences = [
        f"{method}: {estimate(first['mean'], first['low'], first['high'])} with {first['budget']:,} queries, "
        f"{estimate(last['mean'], last['low'], last['high'])} with {last['budget']:,}, n = {last['n']}"
        for method, part in table.groupby("method", sort=True)
        for first, last in [(part.iloc[0], part.iloc[-1])]
    ]
    caption = f"{figure.title}: mean over models with its 95% interval. {'; '.join(sentences)}."
    chart = alt.layer(bands, lines).properties(width=WIDTH, height=HEIGHT)
    return Drawn(style.style_chart(chart), caption, long, table)


def tabulate_by_budget(tidy: pandas.DataFrame, measure: str, figure: str) -> pandas.DataFrame:
    """Rows of stealing measured at a budget, with a column ``budget``.

    Args:
        tidy: Tidy frame.
        measure: Name of the measure.
        figure: Name of the figure, for the error.

    Raises:
        MissingData: If there are none.
    """
    rows = _with_budget(tidy)
    rows = rows[rows["measure"] == measure]
    if rows.empty:
        raise MissingData(figure, list_lacking(rows))
    return rows


def list_lacking(tidy: pandas.DataFrame) -> list[str]:
    """What a frame lacks for these figures."""
    return [] if len(_with_budget(tidy)) else ["model stealing at several query budgets"]


def _with_budget(tidy: pandas.DataFrame) -> pandas.DataFrame:
    rows = tidy[(tidy["attack"] == "stealing") & tidy["value"].notna()]
    of_budget = rows["at"].astype(object).fillna("").astype(str).str.extract(r"^budget=(\d+)$")[0]
    known = of_budget.notna()
    return rows[known].assign(budget=of_budget[known].astype(int))
