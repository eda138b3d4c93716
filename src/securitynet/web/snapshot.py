"""The columns on disk, so that the server starts at once: plain arrays, mapped into memory and read as they are used.

A snapshot belongs to one state of one database: its name holds a digest of the database's address and of the whole list
of changes. It lies in the cache folder, holds nothing that the catalog does not hold, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from securitynet.catalog.database import Database
from securitynet.catalog.tables import changes
from securitynet.files import cache_folder
from securitynet.web.columns import Columns, Facet
from securitynet.web.terms import Terms

FEWEST = 50_000
"""Entries below which reading them is as quick as any file."""

_FORM = 2
_TERMS = tuple(field.name for field in fields(Terms) if field.name != "size")


def load(database: Database) -> Columns | None:
    """The columns of the database's present state, if they were kept."""
    with database.read() as connection:
        folder = _folder(database, connection)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _loaded(folder)
    return None


def save(database: Database, columns: Columns) -> Columns:
    """Keep columns on disk, and remove older states of this database.

    Returns:
        The same columns, mapped from the file, so that memory is given back; those given, if they are few, if the
        catalog has changed since, or if the disk takes no more.
    """
    if len(columns) < FEWEST:
        return columns
    with database.read() as connection:
        if int(connection.execute(sa.select(sa.func.max(changes.c.number))).scalar() or 0) != columns.change:
            return columns
        folder = _folder(database, connection)
    stem = folder.name.partition("-")[0]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{stem}-", dir=folder.parent))
        try:
            _write(part, columns)
            for old in folder.parent.glob(f"{stem}-*"):  # another server that has it mapped keeps what it has
                shutil.rmtree(old, ignore_errors=True)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return _loaded(folder)
    except (OSError, ValueError):
        return columns


def _folder(database: Database, connection: Connection) -> Path:
    address = database.engine.url.render_as_string(hide_password=False)
    state = hashlib.sha256(f"{_FORM}:{address}".encode())
    for row in connection.execute(sa.select(changes).order_by(changes.c.number)):
        state.update(json.dumps(list(row)).encode())
    return cache_folder() / "web" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{state.hexdigest()[:32]}"


def _write(folder: Path, columns: Columns) -> None:
    numeric = [name for name in columns.numeric if name in columns.known]
    facets = list(columns.facets.values())
    arrays: dict[str, NDArray[Any]] = {"numbers": columns.numbers}
    arrays |= {f"terms-{name}": getattr(columns.terms, name) for name in _TERMS}
    arrays |= {f"numeric-{place}": columns.numeric[name] for place, name in enumerate(numeric)}
    arrays |= {f"codes-{place}": facet.codes for place, facet in enumerate(facets)}
    arrays |= {f"owners-{place}": facet.owners for place, facet in enumerate(facets) if facet.owners is not None}
    for place, (known, rest) in enumerate(columns.orders.values()):
        arrays |= {f"order-{place}": known, f"rest-{place}": rest}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    about = {
        "change": columns.change,
        "entries": len(columns),
        "indexed": columns.terms.size,
        "numeric": numeric,
        "empty": [name for name in columns.numeric if name not in columns.known],
        "measured": columns.measured,
        "orders": list(columns.orders),
        "facets": [[facet.name, facet.values, facet.owners is not None] for facet in facets],
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _loaded(folder: Path) -> Columns:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))

    def array(name: str) -> NDArray[Any]:
        # As a plain array: a memmap's own bookkeeping costs at every slice.
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    count = int(about["entries"])
    numeric = dict.fromkeys(about["empty"], np.broadcast_to(np.nan, count))
    numeric |= {name: array(f"numeric-{place}") for place, name in enumerate(about["numeric"])}
    facets = {
        name: Facet(name, tuple(values), array(f"codes-{place}"), array(f"owners-{place}") if several else None)
        for place, (name, values, several) in enumerate(about["facets"])
    }
    found = Columns(
        change=int(about["change"]),
        numbers=array("numbers"),
        numeric=numeric,
        facets=facets,
        terms=Terms(int(about["indexed"]), **{name: array(f"terms-{name}") for name in _TERMS}),
        measured=tuple(about["measured"]),
        known=frozenset(about["numeric"]),
        orders={name: (array(f"order-{place}"), array(f"rest-{place}")) for place, name in enumerate(about["orders"])},
    )
    if len(found) != count or any(len(found.numeric[name]) != count for name in found.known):
        raise ValueError("a snapshot of another size")
    return found
