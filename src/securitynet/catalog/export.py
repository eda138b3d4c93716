"""Writing entries to CSV, JSON Lines or Parquet; the importers read what this writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa

from securitynet.catalog.codebook import codebook
from securitynet.catalog.database import Database
from securitynet.catalog.query import Query
from securitynet.catalog.store import entry_of, rows_with_sources
from securitynet.catalog.tables import entries, measurements
from securitynet.errors import ConfigurationError
from securitynet.files import atomic_write

SUFFIXES = (".csv", ".jsonl", ".parquet")


def export(database: Database, query: Query, path: Path) -> int:
    """Write entries with their sources and measured values; how many.

    Args:
        database: Where they are.
        query: Which ones.
        path: Its suffix says what to write: ``.csv`` (without sources; lists separated by semicolons), ``.jsonl``,
            ``.parquet``.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"Entries cannot be written as {path.suffix or 'a file without suffix'}.", hint=f"Use {', '.join(SUFFIXES)}.")
    records = list(export_records(database, query))
    with atomic_write(path) as stream:
        if path.suffix == ".jsonl":
            stream.writelines(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        elif path.suffix == ".csv":
            stream.write(as_csv(records).encode())
        else:
            text = [{**record, **{name: json.dumps(record[name]) for name in ("preprocessing",) if name in record}} for record in records]
            columns = {name: [_listed(record.get(name), name) for record in text] for name in [*codebook()]}
            for name in sorted({m["name"] for record in records for m in record["measurements"]}):
                by_name = ({m["name"]: m["value"] for m in record["measurements"]} for record in records)
                columns[f"measured:{name}"] = [found.get(name) for found in by_name]
            pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return len(records)


def export_records(database: Database, query: Query) -> Iterator[dict[str, Any]]:
    """One JSON object per entry, with ``sources`` and ``measurements``."""
    numbers = query.numbers()
    measured: dict[int, list[dict[str, Any]]] = {}
    with database.read() as connection:
        statement = sa.select(measurements).where(measurements.c.ended.is_(None), measurements.c.entry.in_(numbers))
        for row in connection.execute(statement.order_by(measurements.c.number)).mappings():
            names = ("name", "value", "low", "high", "measured_by", "source")
            measured.setdefault(row["entry"], []).append({name: row[name] for name in names if row[name] is not None})
        for row in rows_with_sources(connection, entries.c.number.in_(numbers)):
            entry = entry_of(row)
            yield {**entry.known(), "sources": dict(row["sources"]), "measurements": measured.get(row["number"], [])}


def as_csv(records: list[dict[str, Any]]) -> str:
    """Records as CSV: one column a code, one a measured name."""
    names = sorted({m["name"] for record in records for m in record["measurements"]})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*codebook(), *(f"measured:{name}" for name in names)])
    for record in records:
        found = {m["name"]: m["value"] for m in record["measurements"]}
        writer.writerow([*(_cell(record.get(name)) for name in codebook()), *(found.get(name, "") for name in names)])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join(value)
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else value


def _listed(value: Any, name: str) -> Any:
    return list(value or ()) if codebook()[name].several else value
