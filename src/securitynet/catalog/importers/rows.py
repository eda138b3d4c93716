"""CSV, JSON Lines and Parquet whose columns are the codebook's codes; what `export` writes, these read."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from securitynet.catalog.codebook import find_code, load_codebook
from securitynet.catalog.importers.base import ImportProblem, Table, TableError, describe_reason
from securitynet.catalog.known import complete_entry, spell_dataset
from securitynet.catalog.store import Item, Measured
from securitynet.errors import ConfigurationError, SecurityNetError, UnknownName
from securitynet.escaping import unescape_formula

MEASURED_PREFIX = "measured:"
_BOOKKEEPING = frozenset({"id", "version", "duplicate_of", "duplicate_rule", "withdrawn"})
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_MOST_PROBLEMS = 10_000
"""Unusable rows, if most are, after which the rest is not read."""

_Row = tuple[int, Mapping[str, Any] | ImportProblem]


def read_csv(text: str, source: str) -> Table:
    """Read a CSV table; lists are separated by semicolons, objects are JSON."""
    return _table(_csv_rows(text), source)


def read_json_lines(text: str, source: str) -> Table:
    """Read one JSON object a line."""
    return _table(_json_rows(text), source)


def read_parquet(content: bytes, source: str) -> Table:
    """Read a Parquet file; list columns are lists."""
    # Here, not above: most catalogs are opened to be searched.
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{source.removeprefix('import:')} is no Parquet file: {str(error).rstrip('.')}.") from None
    return _table(enumerate(rows, start=1), source)


def _csv_rows(text: str) -> Iterator[_Row]:
    reader = csv.reader(_lines(text), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, ImportProblem(reader.line_num, f"no CSV: {error}")
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_columns(header)
        elif len(cells) != len(header):
            if any(cell.strip() for cell in cells):
                reason = f"{len(cells)} cells where the heading has {len(header)}"
                yield reader.line_num, ImportProblem(reader.line_num, reason)
        else:
            yield reader.line_num, dict(zip(header, map(unescape_formula, cells), strict=True))


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, one by one: a list of them takes far more memory than the text.

    A text file ends each line at a line feed or carriage return; other separators may stand inside a field.
    """
    return (match[0] for match in _LINE.finditer(text))


def _json_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            yield number, ImportProblem(number, f"no JSON: {error}")
            continue
        yield number, value if isinstance(value, dict) else ImportProblem(number, "no JSON object")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _table(rows: Iterable[_Row], source: str) -> Table:
    table = Table(source)
    repeats: Counter[tuple[Any, ...]] = Counter()
    seen = 0
    for line, row in rows:
        seen += 1
        if len(table.problems) > _MOST_PROBLEMS and 2 * len(table.problems) > seen:
            raise TableError(
                f"{source.removeprefix('import:')} holds more than {_MOST_PROBLEMS:,} unusable rows; "
                f"{table.problems[0]}"
            )
        if isinstance(row, ImportProblem):
            table.problems.append(row)
            continue
        try:
            table.add(line, read_item(row, source, repeats))
        except (ValidationError, SecurityNetError, ValueError, TypeError) as error:
            table.problems.append(ImportProblem(line, describe_reason(error)))
    if seen and not table.items and len(table.problems) == seen:
        first = table.problems[0]
        raise TableError(
            f"{source.removeprefix('import:')} holds no usable row; {first}",
            hint="Its columns must be codes of the codebook: securitynet catalog codebook.",
        )
    if not seen:
        raise TableError(f"{source.removeprefix('import:')} holds no rows.")
    return table


def read_item(row: Mapping[str, Any], source: str, repeats: Counter[tuple[Any, ...]] | None = None) -> Item:
    """Read an entry from a mapping of codes to values (or texts).

    ``key`` may be missing: it is then made of source, name and dataset. ``measured:NAME`` columns, and a list
    ``measurements`` of objects, become measured values.

    Args:
        row: Code -> value; unknown columns are refused.
        source: Where the entry comes from, unless the row says.
        repeats: How often each source, name and dataset has occurred so far; counted on, so that keys differ.
    """
    _check_columns(row)
    codes: dict[str, Any] = {}
    measured = [_measured(value) for value in _json(row, "measurements", list)]
    for column, value in row.items():
        if column.startswith(MEASURED_PREFIX):
            if value not in (None, ""):
                name = column.removeprefix(MEASURED_PREFIX)
                measured.append(Measured(name, _finite(column, value), "published", source))
        elif column in load_codebook() and value is not None:
            parsed = find_code(column).parse(value) if isinstance(value, str) else find_code(column).check(value)
            if parsed not in (None, ()):
                codes[column] = parsed
    given = {str(name): str(value) for name, value in dict(_json(row, "sources", dict)).items()}
    if any("\0" in name + value for name, value in given.items()):
        raise ConfigurationError("sources: a text holds a NUL character")
    missing = [name for name in ("source", "name") if name not in codes]
    if missing:
        raise ConfigurationError(f"no {' and no '.join(missing)}")
    if "key" not in codes:
        if "dataset" in codes:
            codes["dataset"] = spell_dataset(codes["dataset"])
        parts = (codes["source"], codes["name"], codes.get("dataset"))
        if repeats is not None:
            repeats[parts] += 1
        number = f"#{repeats[parts]}" if repeats is not None and repeats[parts] > 1 else ""
        codes["key"] = (
            f"{codes['source']}:{codes['name']}" + (f"@{codes['dataset']}" if "dataset" in codes else "") + number
        )
    entry, sources = complete_entry(codes, given)
    return Item(entry, sources, tuple(measured))


def _json(row: Mapping[str, Any], column: str, kind: type) -> Any:
    """A column that holds JSON, as text or already read."""
    value = row.get(column) or kind()
    if isinstance(value, str):
        value = json.loads(value, parse_constant=_no_constant)
    if not isinstance(value, kind):
        raise ConfigurationError(f"{column}: a JSON {'object' if kind is dict else 'list'} is needed")
    return value


def _check_columns(columns: Iterable[str]) -> None:
    allowed = {*load_codebook(), *_BOOKKEEPING, "measurements", "sources"}
    for column in columns:
        if column not in allowed and not column.startswith(MEASURED_PREFIX):
            raise UnknownName("column", column, allowed)


def _measured(value: Any) -> Measured:
    if not isinstance(value, dict) or not {"name", "value", "measured_by", "source"} <= set(value):
        raise ConfigurationError("measurements: each needs name, value, measured_by and source")
    if value["measured_by"] not in ("published", "trial"):
        raise UnknownName("measured_by", str(value["measured_by"]), ("published", "trial"))
    numbers = {name: _finite(name, value[name]) for name in ("value", "low", "high") if value.get(name) is not None}
    if "\0" in f"{value['name']}{value['source']}":
        raise ConfigurationError("measurements: a text holds a NUL character")
    return Measured(str(value["name"]), measured_by=value["measured_by"], source=str(value["source"]), **numbers)


def _finite(name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: {value} is not finite")
    return number
