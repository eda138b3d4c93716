"""Reading the catalog's columns and search terms into Polars frames, and the files that the next start maps.

The database joins rows to CSV text, which Polars parses: neither makes a Python object a value (a million entries
would be thirty million), and both let other threads answer visitors meanwhile.
(The Arrow driver for SQLite was given up: with it a test lost what was written afterwards, probably because it brings
a second SQLite library into the process, and two of them can drop each other's file locks.)

The frame of columns holds the entries that searches show, in the order of their numbers, and no nulls, so that NumPy
sees its columns without copying them:

- ``number``, by which the entry's row is found in the database;
- every code with numbers of which some entry has a value, as Float64, NaN where it is not known;
- every facet, as Enum, the empty text where it is not known; a code with several values as the JSON text of its list;
- ``order:CODE``, the rank of an entry in the order of a code, from 0; from N on where it is not known;
- measured values by name, as Float64, NaN where there is none. Those of a duplicate count for the entry that stands for
  it, and ours are preferred to published ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.codebook import list_facet_codes, load_codebook
from securitynet.catalog.database import Database
from securitynet.catalog.tables import changes, entries, measurements
from securitynet.files import find_cache_folder
from securitynet.web.term_index import build_terms

FEWEST = 50_000
"""Entries below which reading them is as quick as any file."""

_FORM = 5
_PART = 50_000
"""Row numbers that are read at a time."""

_SHOWN = sa.and_(entries.c.duplicate_of.is_(None), entries.c.withdrawn.is_(False))


@dataclass(frozen=True)
class Frames:
    """One state of the catalog as it is read and cached.

    Attributes:
        change: Number of the last change that it holds; 0 if there was none.
        columns: A row an entry that searches show.
        terms: A row a search term (`securitynet.web.term_index`).
    """

    change: int
    columns: pl.DataFrame
    terms: pl.DataFrame


def map_frames(database: Database) -> Frames:
    """Map the frames of the database's present state from the cache folder if they are there, else read them."""
    change, stem = _state(database)
    paths = [stem.with_name(f"{stem.name}-{name}.arrow") for name in ("columns", "terms")]
    if all(path.exists() for path in paths):
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):
            return Frames(change, *map(_map, paths))
    frames = Frames(change, *read_frames(database))
    # What another process has changed meanwhile is in the frames, or not: they are read again, and not written.
    if frames.columns.height < FEWEST or _state(database) != (change, stem):
        return frames
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        stem.parent.mkdir(parents=True, exist_ok=True)
        for old in stem.parent.glob(f"{stem.name.partition('-')[0]}-*.arrow"):  # stays mapped where it is in use
            old.unlink(missing_ok=True)
        for path, frame in zip(paths, (frames.columns, frames.terms), strict=True):
            part = path.with_suffix(f".{os.getpid()}.part")
            try:
                frame.write_ipc(part, record_batch_size=frame.height)  # in one piece, so that it can be mapped
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return Frames(change, *map(_map, paths))
    return frames


def _map(path: Path) -> pl.DataFrame:
    return pl.scan_ipc(path, glob=False).collect()


def read_last_change(database: Database) -> int:
    """Number of the last change of the catalog; 0 if there was none."""
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.max(changes.c.number))).scalar() or 0)


def read_frames(database: Database) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the columns and the search terms of all entries, in one transaction."""
    numeric = [name for name, info in load_codebook().items() if info.numeric]
    ordered = [name for name, info in load_codebook().items() if info.ordered]
    with database.read() as connection:
        frame = _fetch(connection, _entry_columns(), entries.c.number).sort("number")
        frame = frame.with_columns(_as_enum(frame[name]) for name in list_facet_codes())
        frame = frame.with_columns(pl.col(name).cast(pl.Float64) for name in numeric)
        for name in ordered:
            rank = f"order:{name}"
            if name in numeric:
                frame = frame.with_columns((pl.col(name).rank("ordinal") - 1).alias(rank))
                continue
            # In the database's own order, which depends on its collation; its index has it ready.
            column = entries.c[name]
            numbers = sa.select(entries.c.number).where(column.is_not(None)).order_by(column, entries.c.number)
            places = _fetch(connection, numbers).join(frame, on="number", how="semi", maintain_order="left")
            frame = frame.join(places.with_row_index(rank), on="number", how="left", maintain_order="left")
        frame = _with_measured(frame, _fetch(connection, _measured_values(), measurements.c.number).sort("order"))
        texts = sa.select(entries.c.number, entries.c.search_text)
        terms = build_terms(_read_parts(connection, texts, entries.c.number))
    after_all = pl.len() + pl.int_range(pl.len())
    frame = frame.with_columns(pl.col(f"order:{name}").fill_null(after_all).cast(pl.UInt32) for name in ordered)
    frame = frame.drop(name for name in numeric if frame[name].is_null().all())
    return frame.with_columns(pl.col(pl.Float64).fill_null(np.nan)).rechunk(), terms


def _entry_columns() -> sa.Select[Any]:
    numeric = [entries.c[name] for name, info in load_codebook().items() if info.numeric]
    facets = [sa.cast(entries.c[name], sa.Text).label(name) for name in list_facet_codes()]
    return sa.select(entries.c.number, *numeric, *facets).where(_SHOWN)


def _measured_values() -> sa.Select[Any]:
    stands = entries.alias("stands")
    number = sa.func.coalesce(stands.c.number, entries.c.number).label("number")
    # Ours after published ones, later ones after earlier ones: the last one counts.
    order = (measurements.c.number + sa.case((measurements.c.measured_by == "trial", 1 << 50), else_=0)).label("order")
    return (
        sa.select(number, measurements.c.name, measurements.c.value, order)
        .join(entries, entries.c.number == measurements.c.entry)
        .outerjoin(stands, stands.c.id == entries.c.duplicate_of)
        .where(measurements.c.ended.is_(None))
    )


def _as_enum(texts: pl.Series) -> pl.Series:
    """Texts (or JSON lists of texts) as an Enum whose first category is the empty text, for what is not known."""
    texts = texts.cast(pl.String)
    known = sorted(text for text in texts.unique() if text and text not in ("[]", "null"))
    return texts.cast(pl.Enum(["", *known]), strict=False).fill_null("")


def _with_measured(frame: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    values = values.filter(
        pl.col("number").is_in(frame["number"].implode()), ~pl.col("name").cast(pl.String).is_in(frame.columns)
    )
    if values.is_empty():
        return frame
    values = values.unique(["number", "name"], keep="last", maintain_order=True)
    wide = values.pivot("name", index="number", values="value")
    # The most frequent first.
    names = sorted(wide.columns[1:], key=lambda name: (wide[name].null_count(), name))
    return frame.join(wide.select("number", *names), on="number", how="left", maintain_order="left")


def _fetch(connection: Connection, statement: sa.Select[Any], key: sa.Column[Any] | None = None) -> pl.DataFrame:
    """The rows of a statement; texts as Categorical, which holds each only once. `_read_parts` has the arguments."""
    parts = _read_parts(connection, statement, key)
    return pl.concat([part.with_columns(pl.col(pl.String).cast(pl.Categorical)) for part in parts])


def _read_parts(
    connection: Connection, statement: sa.Select[Any], key: sa.Column[Any] | None = None
) -> Iterator[pl.DataFrame]:
    """The rows of a statement, part by part; the first part has none.

    Args:
        connection: In one transaction.
        statement: Of numbers and texts.
        key: By ranges of which it is read in parts.
    """
    types = {sa.Text: pl.String, sa.Float: pl.Float64}
    schema = {column.name: types.get(type(column.type), pl.Int64) for column in statement.selected_columns}
    yield pl.DataFrame(schema=schema)
    parts = [statement]
    if key is not None:
        last = int(connection.execute(sa.select(sa.func.max(key))).scalar() or 0)
        parts = [statement.where(key > first, key <= first + _PART) for first in range(0, last, _PART)]
    for part in parts:
        text = _as_csv(connection, part)
        if text:
            yield pl.read_csv(text, has_header=False, schema=schema, quote_char="'")


def _as_csv(connection: Connection, statement: sa.Select[Any]) -> bytes:
    """Rows as CSV with texts in single quotation marks; what is not known is empty."""
    if connection.dialect.name == "sqlite":
        rows = statement.subquery()
        plain = (sa.Integer, sa.BigInteger)
        cells = [
            sa.func.coalesce(cell if isinstance(cell.type, plain) else sa.func.nullif(sa.func.quote(cell), "NULL"), "")
            for cell in rows.c
        ]
        line = sa.func.printf(",".join(["%s"] * len(cells)), *cells)
        return str(connection.execute(sa.select(sa.func.group_concat(line, "\n"))).scalar() or "").encode()
    compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
    texts = [f'"{column.name}"' for column in statement.selected_columns if isinstance(column.type, sa.Text)]
    options = "FORMAT csv, QUOTE ''''" + (f", FORCE_QUOTE ({', '.join(texts)})" if texts else "")
    cursor: Any = connection.connection.cursor()
    with cursor.copy(f"COPY ({compiled}) TO STDOUT ({options})") as copy:
        return b"".join(copy)


def _state(database: Database) -> tuple[int, Path]:
    """Number of the last change, and how the files of this state of this database begin."""
    address = database.engine.url.render_as_string(hide_password=False)
    count = sa.select(sa.func.count()).select_from(changes).scalar_subquery()
    with database.read() as connection:
        row = connection.execute(sa.select(changes, count).order_by(changes.c.number.desc()).limit(1)).first()
    # The columns too: a column that was added must be read.
    state = json.dumps([_FORM, address, list(row or ()), list(load_codebook()), list_facet_codes()])
    names = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in (address, state)]
    return int(row[0]) if row else 0, find_cache_folder() / "web" / f"{names[0][:16]}-{names[1]}"
