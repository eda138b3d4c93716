"""Performance of attacks by a property of their targets: values with intervals, by architecture, dataset or epochs."""

from __future__ import annotations

import altair as alt
import pandas

from securitynet.analysis import frames, statistics
from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Chart, Drawn, Figure, MissingData
from securitynet.analysis.figures.points import MOST_GROUPS, group_rare_values, make_axis
from securitynet.analysis.figures.texts import estimate, write_count
from securitynet.analysis.frames import Quantity
from securitynet.analysis.quantities import TARGET_ACCURACY

TITLES = {"mse": "Mean squared error"}
"""Titles of axes that are not the names of measures."""

WIDTH, HEIGHT, MOST_PANELS, MOST_MEANS = 250, 220, 12, 16


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Panels of points with intervals.

    Options: ``x`` (column; ``architecture`` by default), ``panel`` and ``colour`` (columns, or ``condition``, which
    distinguishes the quantities), ``ordered`` (whether x is a number, so that means are joined by lines),
    ``easiest_first`` (whether datasets stand in the order of their complexity: by the mean test accuracy of their
    targets, the highest first).

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    x = str(figure.options.get("x", "architecture"))
    panel, colour = str(figure.options.get("panel", "dataset")), str(figure.options.get("colour", "condition"))
    ordered = bool(figure.options.get("ordered"))
    quantities = {name: quantity for name, quantity in figure.quantities.items() if wide[name].notna().any()}
    long, labels = melt_quantities(wide, quantities), [quantity.label for quantity in quantities.values()]
    unknown = long["case"][long[x].isna()].nunique() if ordered else 0
    long = long[long[x].notna()] if ordered else long  # names that are not known are a group of their own
    if long.empty:
        raise MissingData(figure.name, [f"{x.replace('_', ' ')} of a model with {' or '.join(labels)}"])
    for column in {panel, colour, *(() if ordered else (x,))} - {"condition"}:
        long = group_rare_values(long, column)
    by_ease = order_by_ease(tidy, long[x]) if figure.options.get("easiest_first") else None
    bounds = {quantity.label: quantity.bounds for quantity in quantities.values()}
    # A line over several architectures would show which were trained for how long.
    split = ["architecture"] if ordered and long["architecture"].nunique() > 1 else []
    long = long.assign(architecture=long["architecture"].fillna("not known"))
    table = summarise_conditions(long, list(dict.fromkeys([panel, colour, *split, x])), bounds)
    panels = sorted(long[panel].unique(), key=lambda name: _rank(name, quantities, panel))
    colours = sorted(long[colour].unique(), key=lambda name: _rank(name, quantities, colour))
    without_room = [*panels[MOST_PANELS:], *colours[MOST_GROUPS:]]
    panels, colours = panels[:MOST_PANELS], colours[:MOST_GROUPS]
    long = long[long[panel].isin(panels) & long[colour].isin(colours)]
    quantity = next(iter(quantities.values()))
    measures = {quantity.measure[0] for quantity in quantities.values()}
    measured = TITLES.get(name := measures.pop(), name.replace("-", " ").capitalize()) if len(measures) == 1 else None
    by_label = {quantity.label: quantity for quantity in quantities.values()}
    charts = [
        _panel(
            long[long[panel] == name],
            table[table[panel] == name],
            (x, colour),
            colours,
            str(name),
            by_label[str(name)] if panel == "condition" else quantity,
            ordered,
            measured,
            by_ease,
        )
        for name in panels
    ]
    empty = [quantity for name, quantity in figure.quantities.items() if name not in quantities]
    if panel == "condition":
        charts += [_empty_panel(quantity.label, frames.explain_absence(tidy, quantity)) for quantity in empty]
    columns = min(len(charts), 3)
    rows = [alt.hconcat(*charts[start : start + columns], spacing=24) for start in range(0, len(charts), columns)]
    chance = any(quantity.chance is not None for quantity in quantities.values())
    sentences = [
        f"{figure.title}: {write_count(len(long), 'measurement')} on {write_count(long['case'].nunique(), 'model')}."
    ]
    by = [panel, x] if x == "dataset" else [panel, colour, *split, x] if ordered else [panel, colour]
    lines = "Lines: each measurement's 95% interval." if has_intervals(long) else "The values have no intervals."
    sentences += [_means(long, by, bounds), lines]
    lengths = sorted(pandas.to_numeric(long["epochs"]).dropna().unique()) if x != "epochs" else []
    if len(lengths) > 1:
        sentences.append(f"Models trained for {', '.join(f'{n:g}' for n in lengths)} epochs are shown together.")
    sentences += ["Means of the same architecture are joined."] if split else []
    sentences += ["Dashed: guessing."] if chance else []
    sentences += [f"{write_count(unknown, 'model')} of unknown {x.replace('_', ' ')} left out."] if unknown else []
    sentences += [f"Not drawn, for lack of room: {', '.join(map(str, without_room))}."] if without_room else []
    sentences += [f"Without data here: {frames.list_absent(tidy, empty)}."] if empty else []
    if by_ease:
        sentences.append(
            f"Datasets from the least to the most complex, by the mean test accuracy of their targets: "
            f"{', '.join(by_ease)}."
        )
    caption = " ".join(words for words in sentences if words)
    return Drawn(style.style_chart(alt.vconcat(*rows, spacing=20)), caption, long, table)


def order_by_ease(tidy: pandas.DataFrame, names: pandas.Series) -> list[str]:
    """Datasets by the mean test accuracy of their targets, the highest first; those without any come last.

    Args:
        tidy: Tidy frame.
        names: Names of the datasets that are shown.
    """
    accuracy = frames.take(tidy, TARGET_ACCURACY)["value"]
    cases = tidy.drop_duplicates("case").set_index("case")["dataset"].astype(str)
    means = accuracy.groupby(cases.reindex(accuracy.index)).mean()
    return sorted(map(str, names.unique()), key=lambda name: (-float(means.get(name, -1.0)), name))


def melt_quantities(wide: pandas.DataFrame, quantities: dict[str, Quantity]) -> pandas.DataFrame:
    """One row per case and quantity: ``value``, ``low``, ``high`` and, in words, ``condition``."""
    known = [c for c in wide.columns if not any(c in (n, f"{n}_low", f"{n}_high") for n in quantities)]
    parts = [
        wide[known].assign(
            quantity=name,
            condition=quantity.label,
            value=pandas.to_numeric(wide[name]),
            low=pandas.to_numeric(wide[f"{name}_low"]),  # all missing where what is published has no intervals
            high=pandas.to_numeric(wide[f"{name}_high"]),
        )
        for name, quantity in quantities.items()
    ]
    return pandas.concat(parts, ignore_index=True).dropna(subset=["value"])


def has_intervals(long: pandas.DataFrame) -> bool:
    """Whether any value has an interval: what is published in a paper's tables has none."""
    return bool((long["low"].notna() & long["high"].notna()).any())


def summarise_conditions(
    long: pandas.DataFrame, by: list[str], bounds: dict[str, tuple[float, float]]
) -> pandas.DataFrame:
    """Mean of each group with the interval over its models, where there are several.

    Args:
        long: One row per measured value, with columns ``value`` and ``condition``.
        by: Columns of the groups.
        bounds: Condition -> the least and the largest possible value.
    """
    rows = []
    for key, part in long.groupby(by, sort=True):
        mean = statistics.estimate_mean(part["value"].to_numpy(float), bounds=bounds[part["condition"].iloc[0]])
        rows.append(
            dict(zip(by, key, strict=True)) | {"n": mean.n, "mean": mean.value, "low": mean.low, "high": mean.high}
        )
    return pandas.DataFrame(rows)


def _panel(
    long: pandas.DataFrame,
    table: pandas.DataFrame,
    columns: tuple[str, str],
    colours: list[str],
    title: str,
    quantity: Quantity,
    ordered: bool,
    measured: str | None,
    order: list[str] | None = None,
) -> Chart:
    x_name, colour_name = columns
    x: alt.X
    if ordered:
        x = alt.X(
            f"{x_name}:Q",
            title=x_name.capitalize(),
            axis=alt.Axis(tickCount=6),
            scale=alt.Scale(zero=False, padding=12),
        )
    else:
        sort = order or alt.Undefined
        x = alt.X(f"{x_name}:N", sort=sort, title=None, axis=alt.Axis(labelAngle=-30, labelLimit=110))
    scale = alt.Scale(domain=colours, range=[style.choose_ink(number).light for number in range(len(colours))])
    shapes = alt.Scale(
        domain=colours,
        range=["circle", "diamond", "square", "triangle-up", "cross", "triangle-down"][: len(colours)],
    )
    legend = alt.Legend(symbolType="circle", symbolSize=70, columns=2) if len(colours) > 1 else None
    colour = alt.Color(f"{colour_name}:N", scale=scale, sort=colours, legend=legend)
    shape = alt.Shape(f"{colour_name}:N", scale=shapes, sort=colours, legend=legend)
    offset = [] if ordered else [alt.XOffset(f"{colour_name}:N", sort=colours)]
    y_axis = make_axis(quantity)
    base = alt.Chart(long, title=_heading(title))
    y = alt.Y("value:Q", title=measured, axis=y_axis, scale=alt.Scale(zero=False, nice=False, padding=8))
    points = base.mark_point(filled=True, size=40, opacity=0.85).encode(
        x, y, colour, shape, *offset, tooltip=["model:N", "dataset:N", "condition:N", "value:Q"]
    )
    spans = base.mark_rule(opacity=0.6).encode(
        x, alt.Y("low:Q", title=measured, axis=y_axis), alt.Y2("high:Q"), colour, *offset
    )
    layers: list[alt.Chart] = [spans, points]
    if ordered:
        line = alt.Chart(table).mark_line(strokeWidth=1.5)
        detail = [alt.Detail("architecture:N")] if "architecture" in table else []
        layers.insert(0, line.encode(x, alt.Y("mean:Q", title=measured, axis=y_axis), colour, *detail))
    if quantity.chance is not None:
        level = alt.Chart(pandas.DataFrame({"chance": [quantity.chance]}))
        layers.insert(0, level.mark_rule(strokeDash=[3, 3], color=style.CHANCE.light).encode(y="chance:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _empty_panel(title: str, why: str) -> Chart:
    text = alt.Chart(pandas.DataFrame({"text": [why]}), title=_heading(title))
    mark = text.mark_text(color=style.TEXT.light, fontSize=12)
    return alt.layer(mark.encode(text="text:N")).properties(width=WIDTH, height=HEIGHT)


def _heading(title: str) -> alt.TitleParams:
    return alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal", color=style.TEXT.light)


def _means(long: pandas.DataFrame, by: list[str], bounds: dict[str, tuple[float, float]]) -> str:
    """Means of each group over its models; the measured value where there is only one model."""
    words = []
    for key, part in long.groupby(by, sort=True):
        group = ", ".join(
            f"{value:g} {name}" if name == "epochs" else str(value) for name, value in zip(by, key, strict=True)
        )
        mean = statistics.estimate_mean(part["value"].to_numpy(float), bounds=bounds[part["condition"].iloc[0]])
        alone = part.iloc[0] if len(part) == 1 else None
        low, high = (mean.low, mean.high) if alone is None else (alone["low"], alone["high"])
        words.append(f"{group} {estimate(mean.value, low, high)}, n = {mean.n}")
    sentence = f"Means over models with 95% intervals: {'; '.join(words)}."
    return sentence if len(words) <= MOST_MEANS else ""


def _rank(name: object, quantities: dict[str, Quantity], column: str) -> tuple[int, str]:
    """Conditions in the order in which they are declared; other names in alphabetical order."""
    labels = [quantity.label for quantity in quantities.values()]
    return (labels.index(str(name)) if column == "condition" else 0, str(name))
