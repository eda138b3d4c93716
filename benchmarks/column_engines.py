"""Which library keeps the web page's columns: searches of a million models in DuckDB, in Polars, in Polars with NumPy.

    python benchmarks/column_engines.py [--rows 1000000] [--searches 40]

A search is what the page does for one visitor: two filters and a word (its row numbers come from the database), how
many models match, how they divide by 15 facets, and the first 25 in the order of a column. One thread each, because
visitors share the cores. All must find the same. Prints processor time; the ratios count. DuckDB is needed for this
benchmark alone: `pip install duckdb`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import duckdb
import numpy as np
import polars as pl

FACETS = {f"facet{n}": size for n, size in enumerate((44, 60, 2, 5, 5, 1, 13, 5, 3, 7, 30, 8, 3, 12, 20))}
Search = dict[str, Any]
Result = tuple[int, list[list[int]], list[int]]


def make_columns(rows: int) -> pl.DataFrame:
    """Facets as skewed as the catalog's, three columns of numbers."""
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {"number": np.arange(rows, dtype=np.int64)}
    for name, size in FACETS.items():
        codes = np.minimum(draw.exponential(max(size / 4, 0.3), rows).astype(np.int64), size - 1)
        values = [f"value {code}" for code in range(size)]
        columns[name] = pl.Series(np.array(values)[codes]).cast(pl.Enum(values))
    columns["year"] = draw.integers(2012, 2027, rows)
    columns["parameters"] = 10 ** draw.uniform(5, 9, rows)  # no ties, which the three would order differently
    columns["accuracy"] = draw.beta(8, 2, rows)
    return pl.DataFrame(columns)


def make_searches(count: int, rows: int) -> list[Search]:
    """A facet's value, a range, the numbers of the entries with a word, and a column to sort by."""
    draw = np.random.default_rng(1)
    return [
        {
            "facet": f"facet{draw.integers(0, 2)}",
            "value": f"value {min(int(draw.exponential(8)), 40)}",
            "year": int(draw.integers(2012, 2025)),
            "hits": np.sort(draw.choice(rows, int(rows * draw.choice((0.0075, 0.04, 0.3))), replace=False)),
            "sort": str(draw.choice(("accuracy", "parameters"))),
        }
        for _ in range(count)
    ]


def search_in_duckdb(frame: pl.DataFrame) -> Callable[[Search], Result]:
    """SQL; the numbers of a word are joined as an Arrow table."""
    connection = duckdb.connect(config={"threads": 1})
    connection.register("frame", frame)
    connection.execute("CREATE TABLE entries AS SELECT * FROM frame")
    sets = ", ".join(f"({name})" for name in FACETS)

    def run(search: Search) -> Result:
        hits = pl.DataFrame({"number": search["hits"]})
        connection.register("hits", hits)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE matching AS SELECT entries.* FROM entries SEMI JOIN hits USING (number) "
            f"WHERE {search['facet']} = ? AND year >= ?",
            [search["value"], search["year"]],
        )
        names = ", ".join(FACETS)
        rows = connection.execute(
            f"SELECT grouping_id({names}), coalesce({', '.join(f'{name}::VARCHAR' for name in FACETS)}), count(*) "
            f"FROM matching GROUP BY GROUPING SETS ({sets})"
        ).fetchall()
        total = connection.execute("SELECT count(*) FROM matching").fetchone()[0]
        page = connection.execute(f"SELECT number FROM matching ORDER BY {search['sort']}, number LIMIT 25").fetchall()
        by_facet: dict[int, list[int]] = {}
        for facet, _, count in rows:
            by_facet.setdefault(facet, []).append(count)
        # The bit of the first name is the highest, and 0 where rows are grouped by it: facets come in their order.
        counts = [sorted(by_facet[key]) for key in sorted(by_facet)]
        return total, counts, [row[0] for row in page]

    return run


def search_in_polars(frame: pl.DataFrame) -> Callable[[Search], Result]:
    """Polars' own expressions throughout."""

    def run(search: Search) -> Result:
        mask = np.zeros(len(frame), dtype=bool)
        mask[search["hits"]] = True
        matching = frame.filter(
            (pl.col(search["facet"]) == search["value"]) & (pl.col("year") >= search["year"]) & pl.Series(mask)
        )
        counts = [sorted(matching[name].value_counts()["count"].to_list()) for name in FACETS]
        page = matching.bottom_k(25, by=[search["sort"], "number"]).sort(search["sort"], "number")["number"].to_list()
        return len(matching), counts, page

    return run


def search_with_numpy(frame: pl.DataFrame) -> Callable[[Search], Result]:
    """Filters and orders in Polars, counts by `numpy.bincount` of the categories' numbers."""
    codes = {name: frame[name].to_physical().to_numpy() for name in FACETS}

    def run(search: Search) -> Result:
        mask = np.zeros(len(frame), dtype=bool)
        mask[search["hits"]] = True
        chosen = frame.select(
            (pl.col(search["facet"]) == search["value"]) & (pl.col("year") >= search["year"])
        ).to_series().to_numpy()  # fmt: skip
        places = np.flatnonzero(mask & chosen)
        counts = [sorted(n for n in np.bincount(codes[name][places]).tolist() if n) for name in FACETS]
        by = frame[search["sort"]].to_numpy()[places]
        near = np.argpartition(by, 25)[:25] if len(by) > 25 else np.arange(len(by))
        order = near[np.argsort(by[near], kind="stable")]
        return len(places), counts, places[order].tolist()

    return run


def main() -> None:
    """Run the searches with each, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--searches", type=int, default=40)
    arguments = parser.parse_args()
    frame = make_columns(arguments.rows)
    searches = make_searches(arguments.searches, arguments.rows)
    engines = {"DuckDB": search_in_duckdb, "Polars": search_in_polars, "Polars and NumPy": search_with_numpy}
    runs = {name: make(frame) for name, make in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for search in searches:  # in turn, so that what else the machine does falls on all
        results = []
        for name, run in runs.items():
            start = time.process_time()
            results.append(run(search))
            seconds[name].append(time.process_time() - start)
        if any(result != results[0] for result in results):
            raise SystemExit("the engines do not agree")
    for name, several in seconds.items():
        ordered = sorted(several)
        print(
            json.dumps(
                {
                    "engine": name,
                    "median ms": round(1000 * ordered[len(ordered) // 2], 1),
                    "p95 ms": round(1000 * ordered[int(0.95 * len(ordered))], 1),
                }
            )
        )
    print(platform.platform(), f"DuckDB {duckdb.__version__}, Polars {pl.__version__}, load {os.getloadavg()}")


if __name__ == "__main__":
    main()
