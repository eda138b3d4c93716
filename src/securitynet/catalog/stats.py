"""Counts behind the paper's Figure 1, and how much of each code of its Table 2 is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas

from securitynet.catalog.codebook import load_codebook
from securitynet.catalog.frames import choose_accuracy

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


def count_entries(table: pandas.DataFrame) -> Statistics:
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


ACCURACY = "accuracy"
"""Row of `measure_coverage` for the test accuracy, as measured or as claimed; not a code of Table 2."""


def measure_coverage(table: pandas.DataFrame) -> pandas.DataFrame:
    """Share of entries for which each code of the paper's Table 2, their architecture and accuracy are known.

    Args:
        table: From `Catalog.to_frame`.

    Returns:
        One row a code; columns ``all``, and one for each source of entries, the largest first. Shares in [0, 1].
    """
    codes = [name for name, info in load_codebook().items() if info.paper == "Table 2"]
    codes += ["family", "architecture"]
    known = pandas.DataFrame({name: table[name].map(_given).astype(bool) for name in codes}, index=table.index)
    known[ACCURACY] = choose_accuracy(table).notna()
    shares = {"all": known.mean()}
    for source, count in table["source"].value_counts().items():
        if count:
            shares[str(source)] = known[table["source"] == source].mean()
    return pandas.DataFrame(shares, index=known.columns).fillna(0.0)


def _given(value: Any) -> bool:
    return bool(value) if isinstance(value, tuple) else not pandas.isna(value)
