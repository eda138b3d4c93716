"""Figures that neither paper has, declared: what annotations tell, risks of all models, utility against risk."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import quantities as q
from securitynet.analysis.figures import budgets, points, roc_bands, style
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.analysis.figures.texts import estimate, p_value
from securitynet.analysis.frames import Quantity
from securitynet.analysis.prediction import predict
from securitynet.errors import ConfigurationError

NAMED = 8
MOST_MODELS = 60


def draw_prediction(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Actual against predicted values; the models that deviate most are ringed, and named in the caption.

    Raises:
        ConfigurationError: If there are too few models.
    """
    ((name, quantity), *_) = figure.quantities.items()
    found = predict(wide, name)
    if found is None:
        raise ConfigurationError(
            f"{figure.name} needs 20 models of three families at least.",
            hint="Take more models with --from or --where.",
        )
    data = points.grouped(found.table.assign(predicted_=found.table["predicted"]), "dataset")
    order = [group for group in data["dataset"].value_counts().index if group != points.OTHERS]
    order += [points.OTHERS] if (data["dataset"] == points.OTHERS).any() else []
    x = Quantity("Predicted from annotations", (), unit=quantity.unit)
    chart = points.panel(data, ("predicted", x), ("actual", quantity), "dataset", order, diagonal=True)
    named = data.head(NAMED)
    rings = (
        alt.Chart(named)
        .mark_point(filled=False, size=150, strokeWidth=1.2, color=style.TEXT.light)
        .encode(x="predicted:Q", y="actual:Q")
    )
    deviating = "; ".join(f"{row['model']} ({row['residual']:+.3f})".replace("-", "−") for _, row in named.iterrows())
    caption = (
        f"{figure.title}: {quantity.label.lower()} of {len(data):,} models, each predicted from models of other "
        f"families. Mean absolute error {estimate(found.error.value, found.error.low, found.error.high)}; of the mean "
        f"of the same dataset's other families "
        f"{estimate(found.baseline.value, found.baseline.low, found.baseline.high)}; the difference, above zero where "
        f"annotations help: {estimate(found.gain.value, found.gain.low, found.gain.high)}{p_value(found.gain.p)}. "
        f"Correlation of predicted with actual values "
        f"{estimate(found.correlation.value, found.correlation.low, found.correlation.high)}. Used: "
        f"{', '.join(found.used)}. Intervals: 95%, bootstrap over families. Farthest off (ringed): {deviating}."
    )
    return Drawn(style.styled(alt.layer(chart, rings)), caption, found.table)


def draw_heat_map(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Models × attacks, for models of which half at least were measured; ranks, so that scales do not matter."""
    names = [name for name in figure.quantities if wide[name].notna().any()]
    rows = wide[wide[names].notna().sum(axis=1) >= max(len(names) / 2, 1)].copy()
    ranks = rows[names].rank(pct=True)
    rows["_risk"] = ranks.mean(axis=1)
    rows = rows.sort_values("_risk", ascending=False, kind="stable")
    total = len(rows)
    if total > MOST_MODELS:  # the ends, where a reader looks
        rows = pandas.concat([rows.head(MOST_MODELS // 2), rows.tail(MOST_MODELS // 2)])
    rows["_name"] = rows["model"].astype(str) + " · " + rows["dataset"].astype(str)
    repeated = rows["_name"].duplicated(keep=False)
    rows.loc[repeated, "_name"] += " · " + rows.loc[repeated, "case"].astype(str).str[:6]
    long = rows.melt(["_name"], names, "attack", "value").assign(
        rank=ranks.loc[rows.index].melt(value_name="rank")["rank"].to_numpy()
    )
    long = long[long["value"].notna()]
    long["attack"] = long["attack"].map({name: figure.quantities[name].label for name in names})
    x = alt.X("attack:N", sort=None, title=None, axis=alt.Axis(orient="top", labelAngle=-35, labelLimit=260))
    y = alt.Y("_name:N", sort=list(rows["_name"]), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(long)
    cells = base.mark_rect().encode(
        x=x, y=y, color=alt.Color("rank:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    )
    values = alt.Chart(long).mark_text(fontSize=9).encode(
        x=x, y=y, text=alt.Text("value:Q", format=".2f"),
        color=alt.condition("datum.rank > 0.55", alt.value("#111111"), alt.value("#ffffff")),
    )  # fmt: skip
    height, width = 15 * len(rows), 80 * len(names)
    chart = alt.layer(cells, values).properties(width=width, height=height)
    caption = (
        f"{figure.title}: {total:,} models, most at risk first"
        f"{f' (the first and the last {MOST_MODELS // 2} are shown)' if total > MOST_MODELS else ''}. Numbers are "
        "the measurements; colours are ranks among the models, brighter for a higher rank. Order: the mean rank. "
        "Empty: not measured."
    )
    return Drawn(style.styled(chart), caption, long)


def draw_frontier(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """One point a model, or a defense of it: utility against risk; those that none surpasses in both are joined."""
    (x_name, utility), (y_name, risk) = figure.quantities.items()
    data = wide[wide[x_name].notna() & wide[y_name].notna()].copy()
    data["defense"] = data["defense"].astype(object).where(data["defense"].notna(), "no defense").astype(str)
    data = points.grouped(data, "defense")
    order = list(data["defense"].value_counts().index)
    best = frontier(data[x_name].to_numpy(float), data[y_name].to_numpy(float))
    line = (
        alt.Chart(data[best].sort_values(x_name))
        .mark_line(interpolate="step-before", color=style.TEXT.light, strokeWidth=1.2)
        .encode(x=f"{x_name}:Q", y=f"{y_name}:Q")
    )
    spans = alt.Chart(data).mark_rule(opacity=0.4, color=style.TEXT.light)
    errors = [
        spans.encode(x=f"{x_name}:Q", y=f"{y_name}_low:Q", y2=f"{y_name}_high:Q"),
        spans.encode(y=f"{y_name}:Q", x=f"{x_name}_low:Q", x2=f"{x_name}_high:Q"),
    ]
    chart = alt.layer(line, *errors, points.panel(data, (x_name, utility), (y_name, risk), "defense", order))
    named = "; ".join(
        f"{row['model']}, {row['defense']} (accuracy {row[x_name]:.3f}, risk {row[y_name]:.3f})"
        for _, row in data[best].sort_values(x_name).head(NAMED).iterrows()
    )
    caption = (
        f"{figure.title}: {len(data):,} targets, with 95% intervals where they are known. On the line: those that no "
        f"other surpasses in both: {named}. Chosen after the fact, they look a little better than they are."
    )
    return Drawn(style.styled(chart), caption, data)


def frontier(utility: NDArray[np.float64], risk: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other surpasses: none has at least the utility and at most the risk, and one of them better.

    Args:
        utility: N, higher is better.
        risk: N, lower is better.
    """
    better = (utility[None, :] >= utility[:, None]) & (risk[None, :] <= risk[:, None])
    strictly = (utility[None, :] > utility[:, None]) | (risk[None, :] < risk[:, None])
    return np.asarray(~(better & strictly).any(axis=1))


FIGURES = [
    Figure("predicted-stealing", "Model stealing predicted from annotations", "new",
           {"stealing": q.STEALING_ACCURACY}, draw_prediction),
    Figure("predicted-membership", "Membership inference predicted from annotations", "new",
           {"membership": q.MODIFIED_ENTROPY_AUC}, draw_prediction),
    Figure("budget-curves", "Agreement by query budget", "new", {}, budgets.draw_curves,
           check=budgets.lacking),
    Figure("roc-bands", "ROC curves of membership attacks over all targets", "new", {}, roc_bands.draw,
           check=roc_bands.lacking),
    Figure("utility-against-risk", "Utility against membership risk", "new",
           {"target": q.TARGET_ACCURACY, "risk": q.STRONGEST_MEMBERSHIP}, draw_frontier),
    Figure("risk-heat-map", "Risks of models", "new",
           {"correctness": q.CORRECTNESS_AUC, "entropy": q.MODIFIED_ENTROPY_AUC, "agreement": q.STEALING_AGREEMENT},
           draw_heat_map, optional=("correctness", "entropy", "agreement")),
]  # fmt: skip
