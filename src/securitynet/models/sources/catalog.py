"""``catalog:ENTRY``: a model of the catalog, by the id or the key of its entry."""

from __future__ import annotations

from pathlib import Path

from securitynet.errors import ModelError
from securitynet.models.references import ModelReference, parse_reference


def resolve(reference: ModelReference) -> ModelReference:
    """The reference that an entry of the user's own catalog holds.

    Raises:
        ModelError: If there is no such entry, or its model cannot be loaded by reference.
    """
    # Here, because loading any other model needs no database.
    import sqlalchemy as sa

    from securitynet.catalog.database import Database, default_url
    from securitynet.catalog.tables import entries

    if not Path(default_url().removeprefix("sqlite:///")).exists():
        raise ModelError(
            f"{reference} cannot be looked up: there is no catalog yet.",
            hint="Fill it with `securitynet catalog collect`, or name the model by another reference.",
        )
    database = Database()
    try:
        with database.read() as connection:
            wanted = sa.or_(entries.c.id == reference.name, entries.c.key == reference.name)
            row = connection.execute(sa.select(entries.c.key, entries.c.reference).where(wanted)).first()
    finally:
        database.close()
    if row is None:
        raise ModelError(
            f"The catalog has no entry {reference.name!r}.", hint="Find its id with `securitynet catalog search`."
        )
    if row.reference is None:
        raise ModelError(
            f"The catalog's entry {row.key} does not say how to load its model.",
            hint="See its links with `securitynet catalog show`, and load the files by another reference.",
        )
    found = parse_reference(row.reference)
    if found.scheme == "catalog":
        raise ModelError(f"The catalog's entry {row.key} refers to the catalog again.")
    return found
