"""Tables of the papers: values with intervals, cross-tabulated."""

from __future__ import annotations

import pandas

from securitynet.analysis import statistics
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.analysis.figures.performance import has_intervals, melt_quantities
from securitynet.analysis.figures.texts import estimate, number, write_count
from securitynet.metrics import rates
from securitynet.records import Direction

NONE = "no defense"
MOST_ROWS, LEAST_MODELS = 40, 5
"""A table of more rows, as from a catalog, lists those with some models only."""


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Rows and columns by options ``rows`` and ``columns`` (lists of columns, or ``condition`` for the quantities).

    A cell is a measurement with its interval; where several models fall into it, their mean with its interval. Where
    there would be more than `MOST_ROWS` rows, those with `LEAST_MODELS` models or more are listed, if there are any.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    rows, columns = list(figure.options["rows"]), list(figure.options["columns"])
    quantities = {name: quantity for name, quantity in figure.quantities.items() if wide[name].notna().any()}
    long = melt_quantities(wide, quantities)
    long["defense"] = long["defense"].fillna(NONE)
    if "architecture" in rows and long["epochs"].nunique(dropna=False) > 1:  # unequal training is no spread of a mean
        rows.append("epochs")
    long, left_out = _listed(long, [name for name in rows if name != "condition"])
    order = {quantity.label: number for number, quantity in enumerate(quantities.values())}
    table = tabulate_cells(long, rows, columns)
    pivot = table.pivot(index=rows, columns=columns, values=["cell"]).droplevel(0, axis=1)
    if "condition" in rows:
        pivot = pivot.sort_index(key=lambda level: level.map(lambda name: order.get(name, name)), level="condition")
    pivot.columns = pandas.Index(
        [" · ".join([c] if isinstance(c, str) else map(str, c)) for c in pivot.columns.to_flat_index()]
    )
    shown = pivot.fillna("").reset_index()
    return Drawn(None, write_table_caption(figure, long) + left_out, shown, table)


def _listed(long: pandas.DataFrame, by: list[str]) -> tuple[pandas.DataFrame, str]:
    """The part of a frame whose rows a table lists, and a sentence on what it leaves out."""
    if not by or long.groupby(by).ngroups <= MOST_ROWS:
        return long, ""
    listed = long[long.groupby(by)["case"].transform("nunique") >= LEAST_MODELS]
    if listed.empty:
        return long, ""
    fewer = long.groupby(by).ngroups - listed.groupby(by).ngroups
    what = " × ".join(name.replace("_", " ") for name in by)
    return (
        listed,
        f" Not listed: {fewer:,} of {long.groupby(by).ngroups:,} by {what}, of fewer than {LEAST_MODELS} models.",
    )


def tabulate_cells(long: pandas.DataFrame, rows: list[str], columns: list[str]) -> pandas.DataFrame:
    """One row per cell: its group, its text ``cell``, its ``mean``, and the number of values, ``n``.

    Args:
        long: One row per measured value.
        rows: Columns whose values identify the rows of the table.
        columns: Columns whose values identify its columns.
    """
    entries = []
    without = not has_intervals(long)  # which the caption says once
    for key, part in long.groupby([*rows, *columns], sort=True, dropna=False):
        where = dict(zip([*rows, *columns], key, strict=True))
        if len(part) == 1:
            value, low, high = (float(part[name].iloc[0]) for name in ("value", "low", "high"))
            text = number(value) if without else estimate(value, low, high)
        else:
            mean = statistics.estimate_mean(part["value"].to_numpy(float), bounds=(0, 1))
            text = f"{estimate(mean.value, mean.low, mean.high)} ({mean.n} models)"
        entries.append(where | {"cell": text, "mean": part["value"].mean(), "n": len(part)})
    return pandas.DataFrame(entries)


def write_table_caption(figure: Figure, long: pandas.DataFrame) -> str:
    """The caption of a table, with the meaning of its intervals."""
    intervals = (
        "95% intervals: each measurement's own, or of the mean over models where there are several."
        if has_intervals(long)
        else "The values have no intervals of their own; means over several models have 95% intervals."
    )
    return f"{figure.title}: {write_count(long['case'].nunique(), 'model')}. {intervals}"


def draw_flagged(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Share of models that each detector flags, by dataset, with the exact interval, and its median runtime.

    Models with a backdoor, if there are any, have rows of their own: what is flagged among them is no false positive.

    A quantity above its option ``thresholds`` (name -> value) flags a model; below, where the value is negative.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    thresholds = dict(figure.options["thresholds"])
    rows = []
    wide = wide.assign(_backdoor=wide["backdoor"].fillna("none"))
    poisoned = bool((wide["_backdoor"] != "none").any())
    for name, quantity in figure.quantities.items():
        if not wide[name].notna().any():
            continue
        bound = thresholds[name]
        seconds = pandas.to_numeric(
            tidy[tidy["method"].isin(quantity.where.get("method", ()))].groupby("case")["seconds"].first()
        )
        for (dataset, backdoor), part in wide[wide[name].notna()].groupby(["dataset", "_backdoor"], sort=True):
            values = part[name]
            flagged = int((values > bound).sum() if bound >= 0 else (values < -bound).sum())
            share = rates.rate("flagged", flagged, len(part), direction=Direction.LOWER)
            times = seconds.reindex(part["case"]).dropna()
            rows.append(
                {
                    "detector": quantity.label,
                    "dataset": dataset,
                    **({"backdoor": backdoor} if poisoned else {}),
                    "flagged": f"{flagged} of {len(part)}",
                    "share": estimate(share.value or 0.0, share.low or 0.0, share.high or 0.0),
                    "median seconds": round(float(times.median()), 1) if len(times) else None,
                }
            )
    table = pandas.DataFrame(rows)
    caption = f"{figure.title}. Share of the models that a detector flags, with the exact 95% interval."
    return Drawn(None, caption, table)
