"""From what a user writes to the entry that is meant."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.database import CatalogError
from securitynet.catalog.store import WITH_SOURCES, Row
from securitynet.catalog.tables import entries
from securitynet.errors import ConfigurationError, UnknownName, suggest_names

# Made once: SQLAlchemy takes several times as long to make and translate a statement as SQLite to answer it.
_TEXT = sa.bindparam("text", type_=sa.Text)
_BY_CODE = {name: WITH_SOURCES.where(entries.c[name] == _TEXT) for name in ("id", "key", "reference", "name")}
_BY_BEGINNING = WITH_SOURCES.where(entries.c.id >= _TEXT, entries.c.id < _TEXT + "g")


def suggest_values(connection: Connection, name: str, value: str) -> str:
    """Suggest values for a filter that nothing matches.

    Args:
        connection: Of the catalog.
        name: The code.
        value: What was written.

    Returns:
        At most three values of the code in the catalog that look like it, joined by "or"; empty if none does.
    """
    column = entries.c[name]
    known = connection.execute(sa.select(column).where(column.is_not(None)).distinct().limit(20_000)).scalars()
    return suggest_names(value, map(str, known), cutoff=0.6)


def find_row(connection: Connection, identifier: str) -> Row:
    """The row, with its ``sources``, that an identifier stands for.

    Args:
        connection: From `Database.read` or `Database.write`.
        identifier: An id or its first digits (6 or more), a key, a reference, or a name that only one entry has.

    Raises:
        UnknownName: If there is none; close names are suggested.
        ConfigurationError: If several match.
    """
    text = identifier.strip().removeprefix("catalog:")
    tries = [_BY_CODE[name] for name in ("id", "key", "reference")]
    if len(text) >= 6 and not set(text) - set("0123456789abcdef"):
        tries.append(_BY_BEGINNING)
    tries.append(_BY_CODE["name"])
    for statement in tries:
        rows = connection.execute(statement, {"text": text}).mappings().all()
        # Of several with one reference, the one that stands for the others is meant.
        chiefs = [row for row in rows if not row["duplicate_of"]] or rows
        if len(chiefs) == 1:
            return chiefs[0]
        if chiefs:
            listed = ", ".join(f"{row['id']} ({row['key']})" for row in chiefs[:5])
            raise ConfigurationError(f"{identifier!r} stands for {len(chiefs)} entries.", hint=f"Give an id: {listed}.")
    near = sa.select(entries.c.name).where(entries.c.name >= text[:4], entries.c.name < text[:4] + "~").limit(2000)
    names = connection.execute(near).scalars().all()
    if names:
        raise UnknownName("catalog entry", identifier, set(names))
    raise CatalogError(
        f"There is no catalog entry {identifier!r}.", hint="Look for it: securitynet catalog search WORDS."
    )
