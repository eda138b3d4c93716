"""What a figure of membership or attribute inference must say of its baseline: what is reached without the model."""

from __future__ import annotations

import json

import pandas

from securitynet.analysis import frames
from securitynet.analysis.figures.texts import number
from securitynet.analysis.frames import Quantity
from securitynet.analysis.quantities import BLIND_AUC


def describe_blind_baseline(tidy: pandas.DataFrame, quantities: tuple[Quantity, ...], *, drawn: bool = False) -> str:
    """A sentence for the caption of a figure that shows membership inference; empty for others.

    Args:
        tidy: What the figure is drawn from.
        quantities: Of the figure.
        drawn: Whether the figure shows membership inference without naming it among its quantities.
    """
    if not drawn and not any(quantity.where.get("attack") == ("membership",) for quantity in quantities):
        return ""
    cases = tidy.loc[(tidy["attack"] == "membership") & tidy["value"].notna(), "case"].nunique()
    blind = frames.take(tidy, BLIND_AUC)
    if not cases:
        return ""
    if blind.empty:
        return " Without the model (blind baseline): not measured, so members and non-members may differ anyway."
    differ = int((blind["low"] > 0.5).sum())
    values = blind["value"].to_numpy(float)
    finding = (
        "none distinguishes the groups" if not differ else f"in {differ} of them members and non-members differ anyway"
    )
    measured = f"{len(blind)} of the {cases} models here" if len(blind) < cases else f"n = {cases}, all models here"
    return (
        f" Without the model (blind baseline), AUC from {number(float(values.min()))} to "
        f"{number(float(values.max()))}, {measured}: {finding}."
    )


def describe_attribute_baseline(tidy: pandas.DataFrame, quantities: tuple[Quantity, ...]) -> str:
    """A sentence for the caption of a figure that shows attribute inference; empty for others.

    Args:
        tidy: What the figure is drawn from.
        quantities: Of the figure.
    """
    if not any(quantity.where.get("attack") == ("attribute",) for quantity in quantities):
        return ""
    measured = (tidy["attack"] == "attribute") & (tidy["measure"] == "baseline-accuracy") & tidy["value"].notna()
    rows = tidy[measured]
    if rows.empty:
        return " What the class alone says of the attributes: not measured, so accuracies may come without the model."
    names = rows["settings"].map(
        lambda text: str(json.loads(text).get("of", "the attribute")) if isinstance(text, str) else ""
    )
    words = [
        f"{name} {number(float(values.min()))} to {number(float(values.max()))}"
        for name, values in rows.groupby(names.to_numpy(), sort=True)["value"]
    ]
    return f" Accuracy from the class alone, without the model: {'; '.join(words)}."
