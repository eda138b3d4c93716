"""Pictures that methods make: the triggers that a detector optimises, the images that an inversion reconstructs."""

from __future__ import annotations

import json
from collections.abc import Callable

import altair as alt
import numpy as np
import pandas

from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Drawn, Figure, MissingData
from securitynet.analysis.figures.defenses import name_models
from securitynet.analysis.picture_rows import MEASURE

SIDE = 96
"""Height and width of a picture, in pixels."""

MOST_TRIALS = 4
ANOMALY_INDEX = "anomaly-index"
"""The trials that a detector finds most suspicious come first, as the paper shows triggers of flagged models."""


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """A table of pictures: a row for each class, for each target and method.

    Option: ``methods``, names of the methods whose pictures are shown.

    Args:
        wide: Not used.
        tidy: The tidy frame, with pictures.
        figure: The declaration of the figure.

    Raises:
        MissingData: If no trial has any.
    """
    rows = _chosen(tidy, figure.options["methods"])
    if rows.empty:
        raise MissingData(figure.name, [_named(figure.options["methods"])])
    parts = pandas.DataFrame([json.loads(text) for text in rows["settings"]], index=rows.index)
    rows = rows.assign(**{name: parts[name] for name in ("row", "column", "png")})
    panels = []
    cases = rows.drop_duplicates("case")
    rows["model"] = rows["case"].map(dict(zip(cases["case"], name_models(cases), strict=True)))
    shown = tidy[(tidy["measure"] == ANOMALY_INDEX) & tidy["method"].isin(figure.options["methods"])]
    indices = shown.groupby(["case", "method"])["value"].max()
    trials = sorted(
        ((model, method, part) for (model, method), part in rows.groupby(["model", "method"], sort=True)),
        key=lambda trial: -indices.get((trial[2]["case"].iloc[0], trial[1]), -np.inf),
    )
    for model, method, part in trials[:MOST_TRIALS]:
        columns, names = list(dict.fromkeys(part["column"])), list(dict.fromkeys(part["row"]))
        panels.append(
            alt.Chart(part[["row", "column", "png"]], title=_heading(f"{method} on {model}"))
            .mark_image(width=SIDE, height=SIDE)
            .encode(
                x=alt.X(
                    "column:N", sort=columns, title=None, axis=alt.Axis(orient="top", labelAngle=0, labelLimit=140)
                ),
                y=alt.Y("row:N", sort=names, title=None, axis=alt.Axis(labelLimit=220)),
                url="png:N",
            )
            .properties(width=(SIDE + 24) * len(columns), height=(SIDE + 8) * len(names))
        )
    left = len(trials) - len(panels)
    which = "those of the largest anomaly index" if len(indices) else "the first"
    more = f" Of {len(trials)} trials with pictures, {which} are shown." if left else ""
    caption = f"{figure.title}: {', '.join(f'{method} on {model}' for model, method, _ in trials[:MOST_TRIALS])}.{more}"
    data = rows[["model", "dataset", "method", "row", "column"]].reset_index(drop=True)
    return Drawn(style.style_chart(alt.vconcat(*panels, spacing=28)), caption, data)


def need_pictures(methods: tuple[str, ...]) -> Callable[[pandas.DataFrame], list[str]]:
    """A check that there are trials of methods that make pictures.

    Args:
        methods: Their names.
    """

    def check(tidy: pandas.DataFrame) -> list[str]:
        return [] if tidy["method"].isin(methods).any() else [_named(methods)]

    return check


def _chosen(tidy: pandas.DataFrame, methods: tuple[str, ...]) -> pandas.DataFrame:
    return tidy[(tidy["measure"] == MEASURE) & tidy["method"].isin(methods)]


def _named(methods: tuple[str, ...]) -> str:
    return f"pictures of {' or '.join(methods)}, with the trials of a study"


def _heading(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, anchor="start", fontSize=12, fontWeight="normal", color=style.TEXT.light)
