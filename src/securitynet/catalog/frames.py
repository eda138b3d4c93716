"""Entries and their measured values as one data frame."""

from __future__ import annotations

import pandas
import sqlalchemy as sa

from securitynet.catalog.database import Database
from securitynet.catalog.query import Query
from securitynet.catalog.tables import entries, measurements


def load_entries(database: Database, query: Query) -> pandas.DataFrame:
    """One row an entry: its codes, and a column per measured name.

    A measured value of a duplicate counts for the entry that stands for it. Where several people measured the same,
    the latest is taken, ours before published ones.
    """
    table = query.to_frame()
    stands = sa.func.coalesce(entries.c.duplicate_of, entries.c.id).label("id")
    statement = (
        sa.select(stands, measurements.c.name, measurements.c.value)
        .join(entries, entries.c.number == measurements.c.entry)
        .where(measurements.c.ended.is_(None))
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )
    with database.read() as connection:
        rows = pandas.DataFrame(connection.execute(statement).all(), columns=["id", "name", "value"])
    if rows.empty:
        return table
    wide = rows.drop_duplicates(["id", "name"], keep="last").pivot(index="id", columns="name", values="value")
    return table.merge(wide, how="left", left_on="id", right_index=True)


def load_values(database: Database, name: str) -> dict[str, float]:
    """Id -> value of one measured name, as in `load_entries`.

    Args:
        database: Where.
        name: The name.
    """
    stands = sa.func.coalesce(entries.c.duplicate_of, entries.c.id)
    statement = (
        sa.select(stands, measurements.c.value)
        .join(entries, entries.c.number == measurements.c.entry)
        .where(measurements.c.ended.is_(None), measurements.c.name == name)
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )
    with database.read() as connection:
        return {row[0]: row[1] for row in connection.execute(statement)}


def choose_accuracy(table: pandas.DataFrame) -> pandas.Series:
    """Test accuracy of each row: as measured, else as the publisher claims; missing if neither is known."""
    claimed = table["claimed_accuracy"].astype("float64")
    return table["accuracy.test"].fillna(claimed) if "accuracy.test" in table else claimed


def load_measured(database: Database, query: Query) -> pandas.DataFrame:
    """One row a measured value of the entries of a query: id, name, value, low, high, measured_by, source.

    As in `load_entries`, a duplicate's values count for the entry that stands for it; of several values the latest
    counts, and one of ours before a published one.
    """
    stands = sa.func.coalesce(entries.c.duplicate_of, entries.c.id).label("id")
    names = ("name", "value", "low", "high", "measured_by", "source")
    statement = (
        sa.select(stands, *(measurements.c[name] for name in names))
        .join(entries, entries.c.number == measurements.c.entry)
        .where(measurements.c.ended.is_(None))
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )
    with database.read() as connection:
        rows = pandas.DataFrame(connection.execute(statement).all(), columns=["id", *names])
    wanted = set(query.to_frame()["id"])
    return rows[rows["id"].isin(wanted)].drop_duplicates(["id", "name"], keep="last").reset_index(drop=True)
