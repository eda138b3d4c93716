"""How long a search of the catalog takes as it grows: two filters and a word, one page.

    python benchmarks/catalog_search.py --sizes 10000,100000,1000000 [--db postgresql://USER@HOST/NAME]

Prints, per size, the median and the 95th percentile over the queries, and how many rows of the entries' table the
database hands over per query. The database is made anew (a SQLite file in a temporary folder, or the given empty
PostgreSQL database) and grown in place, so that all sizes are of one database.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

import securitynet.catalog
from securitynet.catalog import store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.known import list_families
from securitynet.catalog.schema import CatalogEntry

DATASETS = [f"Dataset {number}" for number in range(40)] + ["CIFAR-10", "CIFAR-100", "SVHN", "ImageNet-1k"]
WORDS = [
    f"{a}{b}" for a in ("small", "base", "large", "aug", "dist", "mix", "cut", "swa", "ema", "adv") for b in range(40)
]
TASKS = ("classification", "classification", "classification", "feature extraction", "detection")
SORTS = (None, "-claimed_accuracy", "year", "-parameters")


def synthetic(first: int, last: int, seed: int = 0) -> Iterator[store.Item]:
    """Entries as varied as real ones: skewed families and datasets, words in names."""
    families = list_families()
    for number in range(first, last):
        draw = random.Random(f"{seed}:{number}")
        family = families[min(int(draw.expovariate(1 / 25)), len(families) - 1)]
        dataset = DATASETS[min(int(draw.expovariate(1 / 8)), len(DATASETS) - 1)]
        words = "_".join(draw.sample(WORDS, 3))
        name = f"{family.lower().replace(' ', '')}{draw.choice((18, 34, 50, 101))}_{words}_{number}"
        entry = CatalogEntry(
            key=f"synthetic:{name}",
            source="synthetic",
            name=name,
            reference=f"hf:synthetic/{number}",
            task_type=draw.choice(TASKS),
            dataset=dataset,
            family=family,
            purpose="security" if draw.random() < 0.1 else "benchmark",
            year=draw.randint(2012, 2026),
            parameters=int(10 ** draw.uniform(5, 9)),
            claimed_accuracy=round(draw.betavariate(8, 2), 4) if draw.random() < 0.7 else None,
        )
        yield store.Item(entry)


def queries(count: int, seed: int = 1) -> list[dict[str, object]]:
    """Two filters and a word each; every kind of filter, every order."""
    draw = random.Random(seed)
    families = list_families()
    found = []
    for number in range(count):
        filters = draw.sample(
            [
                ("dataset", DATASETS[min(int(draw.expovariate(1 / 8)), len(DATASETS) - 1)]),
                ("family", families[min(int(draw.expovariate(1 / 25)), len(families) - 1)]),
                ("year", f"{draw.randint(2012, 2024)}.."),
                ("claimed_accuracy", ">=0.8"),
                ("parameters", "..1e8"),
                ("purpose", draw.choice(("benchmark", "security"))),
                ("task_type", "classification"),
            ],
            2,
        )
        text = draw.choice((draw.choice(WORDS), draw.choice(WORDS)[:3], families[draw.randrange(20)].lower()))
        found.append({"text": text, "filters": dict(filters), "sort": SORTS[number % len(SORTS)]})
    return found


def grow(catalog: Catalog, first: int, last: int) -> float:
    """Add entries in changes of 50,000; seconds it took."""
    start = time.perf_counter()
    for begin in range(first, last, 50_000):
        end = min(begin + 50_000, last)
        with catalog.database.write() as connection:
            change = store.begin_change(connection, "import", "synthetic")
            tally = store.upsert_entries(connection, change, "synthetic", synthetic(begin, end))
            store.end_change(connection, change, tally)
        print(f"  {end:,} entries, {time.perf_counter() - start:.0f} s", flush=True)
    with catalog.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    return time.perf_counter() - start


def measure(catalog: Catalog, count: int) -> dict[str, float]:
    """Milliseconds per query, after one unmeasured round, and rows handed over."""
    rows = 0
    seconds = []
    for timed in (False, True):
        for query in queries(count):
            start = time.perf_counter()
            page = catalog.query(query["text"], filters=query["filters"], sort=query["sort"]).page(50)  # type: ignore[arg-type]
            if timed:
                seconds.append(time.perf_counter() - start)
                rows += len(page.entries)
    ordered = sorted(seconds)
    return {
        "median ms": round(1000 * statistics.median(seconds), 2),
        "p95 ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
        "max ms": round(1000 * ordered[-1], 2),
        "rows per query": round(rows / count, 1),
    }


def main() -> None:
    """Grow and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--db")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="Keep the SQLite file here; it is grown further if it is there.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = securitynet.catalog.open(arguments.db or str(arguments.keep or Path(folder) / "catalog.sqlite"))
        with catalog:
            for size in map(int, arguments.sizes.split(",")):
                present = catalog.query().count()
                took = grow(catalog, present, size) if present < size else 0.0
                found = measure(catalog, arguments.queries)
                print(
                    json.dumps(
                        {"database": catalog.database.dialect, "entries": size, "grown in s": round(took), **found}
                    ),
                    flush=True,
                )
    print(platform.platform(), platform.python_version(), f"SQLAlchemy {sa.__version__}")


if __name__ == "__main__":
    main()
