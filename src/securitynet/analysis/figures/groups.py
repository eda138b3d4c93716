"""Groups: one quantity of the models of each group, as points with the group's mean and interval."""

from __future__ import annotations

from itertools import combinations

import altair as alt
import numpy as np
import pandas

from securitynet.analysis import statistics
from securitynet.analysis.figures import style, violins
from securitynet.analysis.figures.base import Chart, Drawn, Figure, MissingData
from securitynet.analysis.figures.points import group_rare_values, make_axis
from securitynet.analysis.figures.texts import estimate, lower_text, write_count, write_p_value
from securitynet.analysis.simpson import describe_mixed_signs

WIDTH, HEIGHT = 420, 300
MOST_PAIRS = 10
MANY = 100
"""Points of more models are smaller and fainter."""

PADDED = alt.Scale(zero=False, nice=False, padding=8)
"""No point is cut by the edge."""

SHAPES = ("circle", "square", "triangle-up", "triangle-down")


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """A strip of points per group, with its mean and interval.

    Options: ``by``, the column of the groups; ``split``, a column whose values stand side by side within each group
    and are distinguished by colour; ``ordered``, whether groups are numbers, such as years, on a continuous axis;
    ``alike``, a column by which the groups' benchmark models are restricted to what their security models have; and
    ``violin``, whether the distribution of each group is drawn around its points.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    ((name, quantity),) = list(figure.quantities.items())[:1]
    by, split = str(figure.options["by"]), figure.options.get("split")
    ordered = bool(figure.options.get("ordered"))
    rows = wide[wide[name].notna() & wide[by].notna()]
    alike, left_out = figure.options.get("alike"), 0
    if alike:
        everything = len(rows)
        rows = restrict_to_alike(rows, by, str(alike))
        left_out = everything - len(rows)
        if not (rows["purpose"] == "benchmark").any():
            raise MissingData(figure.name, [f"benchmark models of a {alike} that security models of their {by} have"])
    if rows.empty:
        raise MissingData(figure.name, [f"{by.replace('_', ' ')} of models with {quantity.label.lower()}"])
    if rows[by].astype(str).nunique() < 2:
        only = _named(rows[by].iloc[0]) if ordered else str(rows[by].iloc[0])
        raise MissingData(
            figure.name, [f"models of at least two values of {by.replace('_', ' ')} (all {len(rows)} are of {only})"]
        )
    rows = rows if ordered else group_rare_values(rows, by)
    rows = rows.assign(_group=rows[by], _split=rows[split].fillna("not known").astype(str) if split else "")
    table = summarise_groups(rows, name, quantity.bounds)
    random = np.random.default_rng(0)  # points that would lie on each other are moved aside, the same way each time
    rows = rows.assign(_aside=random.uniform(-1, 1, len(rows)))
    chart: Chart
    if figure.options.get("violin"):
        chart = violins.draw(rows, table, name, quantity)
    elif ordered:
        chart = _ordered(rows, table, name, quantity, by)
    else:
        chart = _strips(rows, table, name, quantity, bool(split))
    caption = _caption(figure, rows, table, name, by, ordered, bool(split))
    if alike:
        caption += f" Benchmark models are those of a {alike} that security models of the same {by} have" + (
            f"; {write_count(left_out, 'model')} of others left out." if left_out else "."
        )
    return Drawn(style.style_chart(chart), caption, rows, table)


def restrict_to_alike(rows: pandas.DataFrame, by: str, alike: str) -> pandas.DataFrame:
    """All but the benchmark models that no security model of their group resembles.

    As in SecurityNet, section 2.3, so that differences between architectures are not taken for those of the purpose.

    Args:
        rows: One row per case, with ``purpose``.
        by: Column of the groups.
        alike: Column whose values are compared.
    """
    security = rows[rows["purpose"] == "security"]
    pairs = set(zip(security[by].astype(str), security[alike].astype(str), strict=True))
    own = [pair in pairs for pair in zip(rows[by].astype(str), rows[alike].astype(str), strict=True)]
    return rows[(rows["purpose"] != "benchmark") | pandas.Series(own, index=rows.index, dtype=bool)]


def summarise_groups(rows: pandas.DataFrame, name: str, bounds: tuple[float, float]) -> pandas.DataFrame:
    """Mean of each group with its interval, by families where they are known.

    Args:
        rows: One row per case, with columns ``_group`` and ``_split``.
        name: Column of the quantity.
        bounds: The least and the largest possible value.
    """
    summaries = []
    for (group, split), part in rows.groupby(["_group", "_split"], sort=True):
        clusters = part["family"].astype(str).to_numpy() if part["family"].notna().all() else None
        mean = statistics.estimate_mean(part[name].to_numpy(float), clusters=clusters, bounds=bounds)
        summaries.append(
            {"_group": group, "_split": split, "n": mean.n, "mean": mean.value, "low": mean.low, "high": mean.high}
        )
    return pandas.DataFrame(summaries)


def average_along(rows: pandas.DataFrame, line: str, at: str) -> pandas.DataFrame:
    """Mean over models at each point of each line, in [0, 1]: ``line``, ``at``, ``mean``, ``low``, ``high``, ``n``.

    Args:
        rows: One per model and point, with ``value``, ``low`` and ``high``.
        line: Column that identifies the lines.
        at: Column of the points.
    """
    points = []
    for (name, point), part in rows.groupby([line, at], sort=True):
        mean = statistics.estimate_mean(part["value"].to_numpy(float), bounds=(0, 1))
        alone = len(part) == 1  # of one model, the interval is that of its own measurement
        low, high = (part["low"].iloc[0], part["high"].iloc[0]) if alone else (mean.low, mean.high)
        points.append({line: name, at: point, "mean": mean.value, "low": low, "high": high, "n": mean.n})
    return pandas.DataFrame(points)


def _strips(rows: pandas.DataFrame, table: pandas.DataFrame, name: str, quantity: object, split: bool) -> Chart:
    order = sorted(rows["_group"].unique(), key=lambda group: (group == "others", str(group)))
    splits = sorted(rows["_split"].unique())
    scale = alt.Scale(domain=splits, range=[style.choose_ink(n).light for n in range(len(splits))])
    shapes = alt.Scale(domain=splits, range=[SHAPES[n % len(SHAPES)] for n in range(len(splits))])
    legend = alt.Legend(symbolType=alt.Undefined, symbolSize=70, symbolOpacity=1) if split else None
    colour = alt.Color("_split:N", scale=scale, legend=legend)
    shape = alt.Shape("_split:N", scale=shapes, legend=legend)
    size, opacity = (18, 0.45) if len(rows) > MANY else (34, 0.8)
    x = alt.X("_group:N", sort=order, title=None, axis=alt.Axis(labelAngle=0, labelLimit=110))
    y = alt.Y(f"{name}:Q", title=getattr(quantity, "label", name), scale=PADDED, axis=make_axis(quantity))  # type: ignore[arg-type]
    offset = alt.XOffset("_place:Q", scale=alt.Scale(domain=[-1, len(splits) * 2 - 1]))
    places = {value: 2 * number for number, value in enumerate(splits)}
    rows = rows.assign(_place=rows["_split"].map(places) + 0.55 * rows["_aside"])
    table = table.assign(_place=table["_split"].map(places))
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=size, opacity=opacity)
        .encode(x=x, y=y, xOffset=offset, color=colour, shape=shape, tooltip=["model:N", "dataset:N", f"{name}:Q"])
    )
    spans = (
        alt.Chart(table)
        .mark_rule(strokeWidth=2.5, color=style.TEXT.light)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", xOffset=offset)
    )
    centres = (
        alt.Chart(table)
        .mark_point(filled=True, shape="diamond", size=90, color=style.TEXT.light, stroke="white", strokeWidth=1)
        .encode(x=x, y=alt.Y("mean:Q"), xOffset=offset)
    )
    return alt.layer(points, spans, centres).properties(width=max(WIDTH, 70 * len(order) * len(splits)), height=HEIGHT)


def _ordered(rows: pandas.DataFrame, table: pandas.DataFrame, name: str, quantity: object, by: str) -> Chart:
    rows = rows.assign(_x=rows["_group"].astype(float) + 0.22 * rows["_aside"])
    table = table.assign(_x=table["_group"].astype(float))
    ticks = sorted({int(value) for value in table["_x"]})
    x = alt.X("_x:Q", title=by.replace("_", " ").capitalize(), scale=alt.Scale(zero=False, nice=False, padding=20),
              axis=alt.Axis(format="d", values=ticks))  # fmt: skip
    y = alt.Y(f"{name}:Q", title=getattr(quantity, "label", name), scale=PADDED, axis=make_axis(quantity))  # type: ignore[arg-type]
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=18, opacity=0.45, color=style.choose_ink(0).light)
        .encode(x=x, y=y, tooltip=["model:N", f"{name}:Q"])
    )
    line = alt.Chart(table).mark_line(color=style.TEXT.light, strokeWidth=1.5).encode(x=x, y="mean:Q")
    spans = alt.Chart(table).mark_rule(strokeWidth=2.5, color=style.TEXT.light).encode(x=x, y="low:Q", y2="high:Q")
    centres = (
        alt.Chart(table)
        .mark_point(filled=True, shape="diamond", size=80, color=style.TEXT.light, stroke="white", strokeWidth=1)
        .encode(x=x, y="mean:Q")
    )
    return alt.layer(points, line, spans, centres).properties(width=WIDTH, height=HEIGHT)


def _caption(
    figure: Figure, rows: pandas.DataFrame, table: pandas.DataFrame, name: str, by: str, ordered: bool, split: bool
) -> str:
    ((_, quantity),) = list(figure.quantities.items())[:1]
    parts = [
        f"{figure.title}: {lower_text(quantity.label)} of {write_count(len(rows), 'model')} by {by.replace('_', ' ')}."
    ]
    named = [
        f"{_named(row['_group'])}{' ' + row['_split'] if split else ''} "
        f"{estimate(row['mean'], row['low'], row['high'])}, n = {row['n']}"
        for _, row in table.iterrows()
    ]
    parts.append(f"Diamonds: means with 95% intervals, by families where three or more are known ({'; '.join(named)}).")
    values = rows[name].to_numpy(float)
    if ordered:
        clusters = rows["family"].astype(str).to_numpy() if rows["family"].notna().all() else None
        group = rows["_group"].to_numpy(float)
        datasets = rows["dataset"].astype(str).to_numpy()
        strata = datasets if len(set(datasets)) > 1 else None
        trend = statistics.estimate_correlation(group, values, kind="spearman", clusters=clusters, strata=strata)
        if trend.resolved:
            within = "" if strata is None else ", within datasets"
            parts.append(
                f"Spearman's ρ with {by.replace('_', ' ')}{within}: {estimate(trend.value, trend.low, trend.high)}"
                f"{write_p_value(trend.p)}."
            )
            pooled = pandas.Series(group).corr(pandas.Series(values), method="spearman") if strata is not None else None
            each = {name: (group[datasets == name], values[datasets == name]) for name in sorted(set(datasets))}
            mixed = describe_mixed_signs(
                ((name, statistics.estimate_correlation(*both, kind="spearman").value) for name, both in each.items()),
                pooled,
            )
            parts += [mixed] if mixed else []
    elif split:
        parts += _differences(rows, name)
    else:
        several = rows[rows.groupby("_group")[name].transform("size") > 1]
        if several["_group"].nunique() > 1:
            clusters = several["family"].astype(str).to_numpy() if several["family"].notna().all() else None
            names = several["_group"].astype(str).to_numpy()
            h, p = statistics.rank_groups(several[name].to_numpy(float), names, clusters=clusters)
            parts.append(
                f"Kruskal and Wallis' test of equal distributions, by permutation, of whole families where each is in "
                f"one group: H = {h:.1f}{write_p_value(p)}."
            )
    return " ".join(parts)


def _named(group: object) -> str:
    """A group's name; years come as numbers with a decimal point."""
    return f"{group:g}" if isinstance(group, float) else str(group)


def _differences(rows: pandas.DataFrame, name: str) -> list[str]:
    """Differences between the halves of each group, adjusted for their number."""
    differences, words = [], []
    for group, part in rows.groupby("_group", sort=True):
        known = part["family"].notna().all()
        halves = dict(tuple(part.groupby("_split", sort=True)))
        for (first, a), (second, b) in combinations(halves.items(), 2):
            clusters = (a["family"].astype(str).to_numpy(), b["family"].astype(str).to_numpy()) if known else None
            difference = statistics.group_difference(
                a[name].to_numpy(float), b[name].to_numpy(float), clusters=clusters
            )
            if difference.resolved:
                differences.append(difference)
                words.append(f"{group!s}, {second!s} minus {first!s}")
    adjusted = statistics.adjust_p_values([difference.p for difference in differences])
    texts = [
        f"{what}: {estimate(d.value, d.low, d.high)}{write_p_value(p)}"
        for what, d, p in zip(words, differences, adjusted, strict=True)
    ][:MOST_PAIRS]
    if not texts:
        return []
    how = "over families where each side has three, else Welch's; p adjusted after Holm"
    return [f"Differences of means ({'; '.join(texts)}; {how})."]
