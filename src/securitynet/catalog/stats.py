"""Counts behind the paper's Figure 1: year, country, venue, venue type, dataset and model type, by purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas

FIGURE_1 = {
    "year": "Publishing year",
    "countries": "Country",
    "venue": "Venue",
    "venue_type": "Venue type",
    "dataset": "Dataset",
    "family": "Model type",
}


@dataclass(frozen=True)
class Statistics:
    """Counts of entries.

    Attributes:
        total: All entries.
        purposes: Purpose -> count.
        tasks: Task type -> count.
        counts: Code -> table with columns ``value``, one per purpose, ``total``; most frequent first, years in order.
        distinct: Code -> number of distinct values.
        known: Code -> share of entries that have a value, in [0, 1].
    """

    total: int
    purposes: dict[str, int]
    tasks: dict[str, int]
    counts: dict[str, pandas.DataFrame]
    distinct: dict[str, int]
    known: dict[str, float]


def statistics(table: pandas.DataFrame) -> Statistics:
    """Count entries as in Figure 1. An entry with several countries counts for each.

    Args:
        table: From `Catalog.to_frame`.
    """
    purpose = table["purpose"].astype(object).where(table["purpose"].notna(), "unknown")
    counts, distinct, known = {}, {}, {}
    for name in FIGURE_1:
        rows = pandas.DataFrame({"value": table[name], "purpose": purpose}).explode("value").dropna(subset=["value"])
        if name == "year":
            rows["value"] = rows["value"].astype(int)
        wide = rows.groupby(["value", "purpose"]).size().unstack(fill_value=0)
        wide["total"] = wide.sum(axis=1)
        by, ascending = (["value"], [True]) if name == "year" else (["total", "value"], [False, True])
        counts[name] = (
            wide.reset_index().sort_values(by, ascending=ascending).rename_axis(None, axis=1).reset_index(drop=True)
        )
        distinct[name] = len(wide)
        known[name] = float(table[name].map(_given).mean()) if len(table) else 0.0
    return Statistics(
        total=len(table),
        purposes={str(value): int(count) for value, count in purpose.value_counts().items()},
        tasks={str(value): int(count) for value, count in table["task_type"].value_counts().items()},
        counts=counts,
        distinct=distinct,
        known=known,
    )


def _given(value: Any) -> bool:
    return bool(value) if isinstance(value, tuple) else not pandas.isna(value)
