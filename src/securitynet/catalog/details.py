"""Reading all that is known about one entry."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.identify import find_row
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Measured, read_entry
from securitynet.catalog.tables import entries, measurements

_DUPLICATES = sa.select(entries.c.number, entries.c.key, entries.c.duplicate_rule).where(
    entries.c.duplicate_of == sa.bindparam("id")
)
_MEASURED = (
    sa.select(*(measurements.c[name] for name in ("name", "value", "low", "high", "measured_by", "source")))
    .where(measurements.c.entry.in_(sa.bindparam("numbers", expanding=True)), measurements.c.ended.is_(None))
    .order_by(measurements.c.name, measurements.c.number)
)


@dataclass(frozen=True)
class Details:
    """All that is known about one entry.

    Attributes:
        number: Of its row.
        change: Number of the change that made this state.
        entry: Its codes.
        sources: Code -> where the value comes from.
        measured: Measured values, of this entry and of those that it stands for.
        version: Number of the state.
        withdrawn: Whether it was withdrawn.
        duplicate_of: Id of the entry that stands for it.
        duplicates: Keys of the entries for which it stands, with the rule by which they were recognised.
    """

    number: int
    change: int
    entry: CatalogEntry
    sources: dict[str, str]
    measured: list[Measured]
    version: int
    withdrawn: bool
    duplicate_of: str | None
    duplicates: dict[str, str]


def read_entry_details(connection: Connection, identifier: str) -> Details:
    """Read one entry with its sources, measurements and duplicates; see `find_row` for the identifier."""
    row = find_row(connection, identifier)
    twins = connection.execute(_DUPLICATES, {"id": row["id"]}).all()
    numbers = [row["number"], *(twin.number for twin in twins)]
    return Details(
        entry=read_entry(row),
        measured=[Measured(**values) for values in connection.execute(_MEASURED, {"numbers": numbers}).mappings()],
        duplicates={twin.key: twin.duplicate_rule for twin in twins},
        **{name: row[name] for name in ("number", "change", "sources", "version", "withdrawn", "duplicate_of")},
    )
