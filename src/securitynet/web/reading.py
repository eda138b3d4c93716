"""Reading the catalog's columns into one Polars frame, and the file in the cache folder that the next start maps.

The columns come from the database as Arrow batches (ADBC), so that no value becomes a Python object, and other threads
answer visitors meanwhile. The frame holds the entries that searches show, in the order of their numbers:

- ``number``, by which the entry's row is found in the database;
- every code with numbers, as Float64 (Null if no entry has one), and every facet, as Enum or List(Enum);
- ``order:CODE``, the rank of an entry in the order of a code; null where it is not known;
- measured values by name, Float64; those of a duplicate count for the entry that stands for it, ours before published
  ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from securitynet.catalog.codebook import codebook, facet_codes
from securitynet.catalog.database import Database
from securitynet.catalog.tables import changes, entries, measurements
from securitynet.errors import MissingExtra
from securitynet.files import cache_folder

FEWEST = 50_000
"""Entries below which reading them is as quick as any file."""

_FORM = 3
_BATCH = 1 << 16
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def load_frame(database: Database) -> tuple[int, pl.DataFrame]:
    """Number of the last change, and the frame: mapped from the cache folder if it is there, else read.

    Raises:
        MissingExtra: If the driver for this kind of database is not installed.
    """
    change, path = _state(database)
    if path.exists():
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):
            return change, pl.scan_ipc(path, glob=False).collect()
    frame = read_frame(database)
    # What another process has changed meanwhile is in the frame, or not: it is read again, and not written.
    if frame.height < FEWEST or _state(database) != (change, path):
        return change, frame
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            frame.write_ipc(part)
            for old in path.parent.glob(f"{path.name.partition('-')[0]}-*.arrow"):  # stays mapped where it is in use
                old.unlink(missing_ok=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return change, pl.scan_ipc(path, glob=False).collect()
    return change, frame


def last_change(database: Database) -> int:
    """Number of the last change of the catalog; 0 if there was none."""
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.max(changes.c.number))).scalar() or 0)


def read_frame(database: Database) -> pl.DataFrame:
    """Read the columns of all entries, in one transaction."""
    with _connect(database) as cursor:
        frame = _fetch(database, cursor, _entry_columns()).filter(pl.col("number") >= 0).sort("number")
        frame = _with_facets(frame)
        empty = [name for name, dtype in frame.schema.items() if dtype == pl.Float64 and frame[name].is_null().all()]
        frame = frame.with_columns(pl.lit(None).alias(name) for name in empty)
        for info in codebook().values():
            if info.ordered and info.name in empty:
                frame = frame.with_columns(pl.lit(None).alias(f"order:{info.name}"))
            elif info.ordered and info.numeric:
                frame = frame.with_columns(pl.col(info.name).rank("ordinal").alias(f"order:{info.name}"))
            elif info.ordered:
                # The database's own order, which depends on its collation.
                column = entries.c[info.name]
                ordered = sa.select(entries.c.number).where(column.is_not(None)).order_by(column, entries.c.number)
                ranks = _fetch(database, cursor, ordered).with_row_index(f"order:{info.name}")
                frame = frame.join(ranks, on="number", how="left", maintain_order="left")
        return _with_measured(frame, _fetch(database, cursor, _measured_values()))


def _entry_columns() -> sa.CompoundSelect[Any]:
    book = codebook()
    types: dict[str, Any] = {name: sa.Float for name, info in book.items() if info.numeric}
    types |= dict.fromkeys(facet_codes(), sa.Text)
    shown = sa.and_(entries.c.duplicate_of.is_(None), entries.c.withdrawn.is_(False))
    cells = [entries.c.number, *(sa.cast(entries.c[name], kind).label(name) for name, kind in types.items())]
    # SQLite's columns have no types of their own: the driver takes those of the first row, which this one gives.
    first = [sa.literal(-1).label("number")]
    first += [sa.literal("" if kind is sa.Text else 0.5).label(name) for name, kind in types.items()]
    return sa.union_all(sa.select(*first), sa.select(*cells).where(shown))


def _measured_values() -> sa.Select[Any]:
    stands = entries.alias("stands")
    return (
        sa.select(
            sa.func.coalesce(stands.c.number, entries.c.number).label("number"),
            measurements.c.name,
            measurements.c.value,
        )
        .join(entries, entries.c.number == measurements.c.entry)
        .outerjoin(stands, stands.c.id == entries.c.duplicate_of)
        .where(measurements.c.ended.is_(None))
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )


def _with_facets(frame: pl.DataFrame) -> pl.DataFrame:
    for name in facet_codes():
        if codebook()[name].several:
            # A million lists take few forms: each form is read once.
            forms = frame[name].drop_nulls().unique().cast(pl.String)
            lists = [json.loads(form) or None for form in forms]
            values = pl.Enum(sorted({item for items in lists for item in items or ()}))
            items = pl.DataFrame({name: forms.cast(pl.Categorical), "items": pl.Series(lists, dtype=pl.List(values))})
            joined = frame.select(name).join(items, on=name, how="left", maintain_order="left")
            frame = frame.with_columns(joined["items"].alias(name))
        else:
            texts = frame[name].drop_nulls().unique().cast(pl.String).sort()
            frame = frame.with_columns(pl.col(name).cast(pl.Enum(texts)))
    return frame


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


def _fetch(database: Database, cursor: Any, statement: sa.Executable) -> pl.DataFrame:
    """The rows of a statement; texts as Categorical, which holds each only once."""
    compiled = statement.compile(database.engine, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
    cursor.execute(str(compiled))
    reader = cursor.fetch_record_batch()
    batches = itertools.chain([reader.schema.empty_table()], reader)
    tables = (pl.DataFrame(batch) for batch in batches)
    return pl.concat([table.with_columns(pl.col(pl.String).cast(pl.Categorical)) for table in tables], rechunk=True)


@contextlib.contextmanager
def _connect(database: Database) -> Iterator[Any]:
    """A cursor of the database's Arrow driver, in one transaction that sees one state."""
    url = database.engine.url
    try:
        if database.sqlite:
            from adbc_driver_sqlite import dbapi

            address = str(url.database)
        else:
            from adbc_driver_postgresql import dbapi

            address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    except ModuleNotFoundError as error:
        extra = "web" if database.sqlite else "postgres"
        raise MissingExtra(str(error.name).replace("_", "-"), extra, "The web page") from None
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        if database.sqlite:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_BATCH)})
        else:
            cursor.execute(_SNAPSHOT)
        yield cursor


def _state(database: Database) -> tuple[int, Path]:
    """Number of the last change, and the file of this state of this database."""
    address = database.engine.url.render_as_string(hide_password=False)
    count = sa.select(sa.func.count()).select_from(changes).scalar_subquery()
    with database.read() as connection:
        row = connection.execute(sa.select(changes, count).order_by(changes.c.number.desc()).limit(1)).first()
    # The columns too: a column that was added must be read.
    state = json.dumps([_FORM, address, list(row or ()), list(codebook()), facet_codes()])
    names = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in (address, state)]
    return int(row[0]) if row else 0, cache_folder() / "web" / f"{names[0][:16]}-{names[1]}.arrow"
