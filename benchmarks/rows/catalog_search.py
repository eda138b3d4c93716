"""Searches of the catalog as it grows: a word, or the beginning of one, and two filters; one page of results.

The first hundred thousand entries are imported as a user's would be. For a million these are copied inside the
database, with other names, which takes a minute instead of eight.
"""

from __future__ import annotations

import sqlalchemy as sa

from catalog_search import grow, queries
from harness.row import Row, Within, require

IMPORTED = 100_000
QUERIES = 40

ROW = Row(
    f"Catalog: {QUERIES} searches",
    unit="entries",
    sizes=(10_000, 100_000, 1_000_000),
    aims=(Within(100 * QUERIES, size=1_000_000),),
    rounds=3,
    allowance=30,
)


@ROW.inputs
def inputs(case):
    import securitynet.catalog

    path = case.folder / "catalog.sqlite"
    with securitynet.catalog.open(str(path)) as catalog:
        present = catalog.query().count()
        imported = min(case.size, IMPORTED)
        if present < imported:
            grow(catalog, present, imported)
        if present < case.size > imported:
            multiply(catalog, imported, case.size // imported)


def multiply(catalog, count, times):
    """Copy entries 1 to ``count`` until there are ``times`` as many; triggers put the copies into the search index."""
    from securitynet.catalog.tables import entries

    changed = {"number", "id", "key", "name", "reference"}
    kept = ", ".join(f'"{column.name}"' for column in entries.columns if column.name not in changed)
    with catalog.database.write() as connection:
        for copy in range(1, times):
            connection.execute(
                sa.text(
                    f"INSERT INTO entries (number, id, key, name, reference, {kept}) SELECT number + :shift, "
                    f"id || :mark, key || :mark, name || :mark, reference || :mark, {kept} FROM entries "
                    "WHERE number <= :count"
                ),
                {"shift": copy * count, "mark": f"-{copy}", "count": count},
            )
    with catalog.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


@ROW.side("ours")
def ours(case):
    import securitynet.catalog

    catalog = securitynet.catalog.open(str(case.folder / "catalog.sqlite"))
    asked = queries(QUERIES)

    def run():
        found = [catalog.query(one["text"], filters=one["filters"], sort=one["sort"]).page(50) for one in asked]
        return {
            "entries": catalog.query().count(),
            "found": [len(page.entries) for page in found],
            "right": [
                all(
                    entry.dataset == one["filters"].get("dataset", entry.dataset)
                    and entry.family == one["filters"].get("family", entry.family)
                    for entry in page.entries
                )
                for one, page in zip(asked, found, strict=True)
            ],
        }

    return run


@ROW.check
def check(case, found):
    ours = found["ours"]
    require(ours["entries"] == case.size, f"there are {ours['entries']} entries")
    require(ours["right"].all(), "a search found an entry that its filters exclude")
    require(ours["found"].sum() > 0, "no search found anything")
    return f"all {int(ours['found'].sum()):,} entries that were handed over satisfy their search's filters"
