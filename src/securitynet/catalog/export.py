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

from securitynet.catalog.codebook import CodeInfo, load_codebook
from securitynet.catalog.database import Database
from securitynet.catalog.query import Query
from securitynet.catalog.store import read_entry, read_rows_with_sources, select_of_duplicates
from securitynet.catalog.tables import entries, measurements
from securitynet.errors import ConfigurationError
from securitynet.escaping import escape_formula
from securitynet.files import write_atomically

SUFFIXES = (".csv", ".jsonl", ".parquet")


def export(database: Database, query: Query, path: Path) -> int:
    """Write entries with their sources and measured values; how many.

    Args:
        database: Where they are.
        query: Which ones.
        path: Its suffix says what to write: ``.csv``, ``.jsonl`` or ``.parquet``.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"Entries cannot be written as {path.suffix or 'a file without suffix'}.",
            hint=f"Use {', '.join(SUFFIXES)}.",
        )
    records = list(export_records(database, query))
    with write_atomically(path) as stream:
        if path.suffix == ".jsonl":
            stream.writelines(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        elif path.suffix == ".csv":
            stream.write(as_csv(records).encode())
        else:
            pyarrow.parquet.write_table(
                pyarrow.Table.from_pylist([flatten_record(record) for record in records], SCHEMA), stream
            )
    return len(records)


def export_records(database: Database, query: Query) -> Iterator[dict[str, Any]]:
    """One JSON object per entry, with ``sources`` and ``measurements``, with those of duplicates left out."""
    numbers = query.numbers()
    measured: dict[int, dict[tuple[str, ...], dict[str, Any]]] = {}
    with database.read() as connection:
        present = sa.select(measurements, measurements.c.entry.label("counts_for")).where(
            measurements.c.ended.is_(None), measurements.c.entry.in_(numbers)
        )
        parts = [present] if query.duplicates else [select_of_duplicates(entries.c.number.in_(numbers)), present]
        for part in parts:
            for taken in connection.execute(part.order_by(measurements.c.number)).mappings():
                names = ("name", "value", "low", "high", "measured_by", "source")
                value = {name: taken[name] for name in names if taken[name] is not None}
                of_entry = measured.setdefault(taken["counts_for"], {})
                of_entry[taken["name"], taken["measured_by"], taken["source"]] = value
        for row in read_rows_with_sources(connection, entries.c.number.in_(numbers)):
            entry = read_entry(row)
            yield {
                **entry.known(),
                "sources": dict(row["sources"]),
                "measurements": list(measured.get(row["number"], {}).values()),
            }


def as_csv(records: list[dict[str, Any]]) -> str:
    """Records as CSV: one column a code; lists separated by semicolons, sources and measurements as JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [
        *load_codebook(),
        *(name for name in ("sources", "measurements") if any(name in record for record in records)),
    ]
    writer.writerow(columns)
    writer.writerows([write_cell(record.get(name), name) for name in columns] for record in records)
    return buffer.getvalue()


def write_cell(value: Any, name: str) -> Any:
    """A value as a cell of a CSV file, which no spreadsheet takes for a formula."""
    if name in ("sources", "measurements") or isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    text = ";".join(value) if isinstance(value, list) else "" if value is None else value
    return escape_formula(text) if isinstance(text, str) else text


def flatten_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record for Parquet: what has no fixed shape as JSON text."""
    return {
        name: json.dumps(value) if name in ("preprocessing", "sources") else value for name, value in record.items()
    }


def _arrow_type(info: CodeInfo) -> pyarrow.DataType:
    if info.several:
        return pyarrow.list_(pyarrow.string())
    return {"integer": pyarrow.int64(), "number": pyarrow.float64(), "boolean": pyarrow.bool_()}.get(
        info.kind, pyarrow.string()
    )


_MEASURED = pyarrow.struct(
    [("name", pyarrow.string()), ("value", pyarrow.float64()), ("low", pyarrow.float64()), ("high", pyarrow.float64()),
     ("measured_by", pyarrow.string()), ("source", pyarrow.string())]
)  # fmt: skip
SCHEMA = pyarrow.schema(
    [
        *((info.name, _arrow_type(info)) for info in load_codebook().values()),
        ("sources", pyarrow.string()),
        ("measurements", pyarrow.list_(_MEASURED)),
    ]
)
