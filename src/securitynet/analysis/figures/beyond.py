"""Declarations of figures that are in neither paper: prediction from annotations, risks, utility against risk."""

from __future__ import annotations

from collections.abc import Callable

import altair as alt
import pandas

from securitynet.analysis import frames, prediction
from securitynet.analysis import quantities as q
from securitynet.analysis.figures import budgets, evasion, frontier, heat_map, points, roc_bands, style
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.analysis.figures.texts import estimate, lower_text, write_p_value
from securitynet.analysis.frames import Quantity
from securitynet.errors import ConfigurationError

NAMED = 8


def draw_prediction(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Actual against predicted values; the models that deviate most are ringed, and named in the caption.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.

    Raises:
        ConfigurationError: If there are too few models.
    """
    ((name, quantity), *_) = figure.quantities.items()
    result = prediction.predict_families(wide, name)
    if result is None:
        raise ConfigurationError(
            f"{figure.name} needs {prediction.FEWEST} models of {prediction.FEWEST_FAMILIES} families or more.",
            hint="Include more models with --from or --where.",
        )
    data = points.group_rare_values(result.table.assign(predicted_=result.table["predicted"]), "dataset")
    order = [group for group in data["dataset"].value_counts().index if group != points.OTHERS]
    order += [points.OTHERS] if (data["dataset"] == points.OTHERS).any() else []
    x = Quantity("Predicted from annotations", (), unit=quantity.unit)
    chart = points.draw_panel(data, ("predicted", x), ("actual", quantity), "dataset", order, diagonal=True)
    named = data.head(NAMED)
    rings = (
        alt.Chart(named)
        .mark_point(filled=False, size=150, strokeWidth=1.2, color=style.TEXT.light)
        .encode(x="predicted:Q", y="actual:Q")
    )
    deviating = "; ".join(f"{row['model']} ({row['residual']:+.3f})".replace("-", "−") for _, row in named.iterrows())
    caption = (
        f"{figure.title}: {lower_text(quantity.label)} of {len(data):,} models, each predicted from models of other "
        f"families. Mean absolute error {estimate(result.error.value, result.error.low, result.error.high)}; of the "
        f"mean of the same dataset's other families "
        f"{estimate(result.baseline.value, result.baseline.low, result.baseline.high)}; the difference, above zero "
        f"where annotations help: "
        f"{estimate(result.gain.value, result.gain.low, result.gain.high)}{write_p_value(result.gain.p)}. "
        f"Correlation of predicted with actual values, within datasets: "
        f"{estimate(result.correlation.value, result.correlation.low, result.correlation.high)}. Used: "
        f"{', '.join(name.replace('_', ' ') for name in result.used)}. Intervals: 95%, jackknife over families. "
        f"Farthest off (ringed): {deviating}."
    )
    return Drawn(style.style_chart(alt.layer(chart, rings)), caption, result.table)


def need_enough_models(quantity: Quantity) -> Callable[[pandas.DataFrame], list[str]]:
    """A check that there are enough models and families to predict some from the others."""

    def check(tidy: pandas.DataFrame) -> list[str]:
        measured = frames.take(tidy, quantity)
        rows = tidy[tidy["case"].isin(measured.index)]
        families = rows["family"].fillna(rows["architecture"]).fillna(rows["model"]).nunique()
        enough = len(measured) >= prediction.FEWEST and families >= prediction.FEWEST_FAMILIES
        few = f"{prediction.FEWEST} models of {prediction.FEWEST_FAMILIES} families"
        return (
            [] if enough or measured.empty else [f"{few} with {lower_text(quantity.label)} (there are {len(measured)})"]
        )

    return check


FIGURES = [
    Figure("predicted-stealing", "Model stealing predicted from annotations", "new",
           {"stealing": q.STEALING_ACCURACY}, draw_prediction, check=need_enough_models(q.STEALING_ACCURACY)),
    Figure("predicted-membership", "Membership inference predicted from annotations", "new",
           {"membership": q.MODIFIED_ENTROPY_AUC}, draw_prediction, check=need_enough_models(q.MODIFIED_ENTROPY_AUC)),
    Figure("budget-curves", "Agreement by query budget", "new", {}, budgets.draw_curves,
           check=budgets.list_lacking),
    Figure("roc-bands", "ROC curves of membership attacks over all targets", "new", {}, roc_bands.draw,
           check=roc_bands.list_lacking, options={"membership": True}),
    Figure("accuracy-under-attack", "Accuracy under attack", "new", {}, evasion.draw, check=evasion.list_lacking),
    Figure("utility-against-risk", "Utility against membership risk", "new",
           {"target": q.TARGET_ACCURACY, "risk": q.STRONGEST_MEMBERSHIP}, frontier.draw),
    Figure("utility-against-worst-case", "Utility against the risk of the worst records", "new",
           {"target": q.TARGET_ACCURACY, **q.WORST_RECORDS}, frontier.draw, optional=tuple(q.WORST_RECORDS),
           check=frontier.list_lacking),
    Figure("risk-heat-map", "Risks of models", "new", {}, heat_map.draw, check=heat_map.list_lacking,
           options={"membership": True}),
]  # fmt: skip
