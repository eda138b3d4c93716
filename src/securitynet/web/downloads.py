"""Downloads of what matches: CSV, JSON and Parquet, read and sent part by part."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa

from securitynet.catalog import export
from securitynet.catalog.codebook import load_codebook
from securitynet.catalog.database import Database
from securitynet.catalog.store import select_of_duplicates
from securitynet.catalog.tables import entries, measurements, provenance
from securitynet.web.column_store import Integers

KINDS = {"csv": "text/csv; charset=utf-8", "json": "application/json", "parquet": "application/vnd.apache.parquet"}
_PART = 1000
_MEASURED = ("name", "value", "low", "high", "measured_by", "source")


def read_records(database: Database, numbers: Integers) -> Iterator[list[dict[str, Any]]]:
    """Entries with sources and measured values, a thousand at a time, in this order.

    They have the form of `securitynet.catalog.export`: the importers read it.
    """
    names = list(load_codebook())
    for start in range(0, len(numbers), _PART):
        part = [int(number) for number in numbers[start : start + _PART]]
        inside = entries.c.number.in_(part)
        with database.read() as connection:
            statement = sa.select(entries, provenance.c.sources).join(
                provenance, provenance.c.entry == entries.c.number
            )
            rows = {row["number"]: row for row in connection.execute(statement.where(inside)).mappings()}
            present = sa.select(measurements, measurements.c.entry.label("counts_for")).where(
                measurements.c.ended.is_(None), measurements.c.entry.in_(part)
            )
            measured: dict[int, dict[tuple[str, ...], dict[str, Any]]] = {}
            for select in (select_of_duplicates(inside), present):
                for taken in connection.execute(select.order_by(measurements.c.number)).mappings():
                    value = {name: taken[name] for name in _MEASURED if taken[name] is not None}
                    of_entry = measured.setdefault(taken["counts_for"], {})
                    of_entry[taken["name"], taken["measured_by"], taken["source"]] = value
        yield [
            {
                **{name: rows[number][name] for name in names if rows[number][name] not in (None, [])},
                "sources": dict(rows[number]["sources"]),
                "measurements": list(measured.get(number, {}).values()),
            }
            for number in part
            if number in rows
        ]


def stream_file(kind: str, database: Database, numbers: Integers) -> Iterator[bytes]:
    """Write entries as a file, part by part.

    Args:
        kind: ``csv``, ``json`` or ``parquet``.
        database: Where the entries are read.
        numbers: Their row numbers, in the order of the file.
    """
    return {"csv": _csv, "json": _json, "parquet": _parquet}[kind](read_records(database, numbers))


def _csv(parts: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    names = [*load_codebook(), "sources", "measurements"]
    yield (",".join(names) + "\n").encode()
    for part in parts:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([export.write_cell(record.get(name), name) for name in names] for record in part)
        yield buffer.getvalue().encode()


def _json(parts: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    before = "[\n"
    for part in parts:
        for record in part:
            yield (before + json.dumps(record, ensure_ascii=False)).encode()
            before = ",\n"
    yield b"\n]\n" if before == ",\n" else b"[]\n"


def _parquet(parts: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    # Its index stands at the end: the file is written whole, on disk, then sent.
    with tempfile.TemporaryFile() as file:
        with pyarrow.parquet.ParquetWriter(file, export.SCHEMA) as writer:
            for part in parts:
                writer.write_table(
                    pyarrow.Table.from_pylist([export.flatten_record(record) for record in part], export.SCHEMA)
                )
        file.seek(0)
        while block := file.read(1 << 16):
            yield block
