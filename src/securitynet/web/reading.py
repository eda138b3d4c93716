"""Reading the catalog's columns from the database, quickly: as text in parts of 10,000 entries.

The database joins the rows of a part to one CSV text, which Arrow parses: neither makes a Python object a value (a
million entries would be thirty million), and both let other threads answer visitors meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from securitynet.catalog.codebook import codebook
from securitynet.catalog.database import Database
from securitynet.catalog.tables import changes, entries, measurements
from securitynet.web.columns import UNKNOWN, Codes, Columns, Facet, Floats, Integers
from securitynet.web.terms import Builder

FACETS = (
    "dataset", "family", "purpose", "task_type", "architecture_type", "source", "topic_category", "publisher_type",
    "membership", "venue_type", "countries", "elements", "head", "threat", "license",
)  # fmt: skip
_PART = 10_000
_WAITING = 2
"""Parts that may be read and not yet parsed: a part is some five million bytes."""

Progress = Callable[[int, int], None]


def last_change(connection: Connection) -> int:
    """Number of the last change of the catalog; 0 if there was none."""
    return int(connection.execute(sa.select(sa.func.max(changes.c.number))).scalar() or 0)


def read(database: Database, progress: Progress = lambda done, total: None) -> Columns:
    """Read the columns of all entries, in one transaction.

    Args:
        database: Where.
        progress: Called with how many row numbers are done, and how many there are.
    """
    book = codebook()
    numeric = [name for name, info in book.items() if info.numeric]
    types = {"number": pa.int64()} | dict.fromkeys(numeric, pa.float64())
    types |= {name: pa.dictionary(pa.int32(), pa.string()) for name in FACETS} | {"search_text": pa.string()}
    texts = [sa.cast(entries.c[name], sa.Text) if book[name].several else entries.c[name] for name in FACETS]
    cells = [entries.c.number, *(entries.c[name] for name in numeric), *map(_quoted, texts), entries.c.search_text]
    shown = sa.and_(entries.c.duplicate_of.is_(None), entries.c.withdrawn.is_(False))
    gathered = _Gathered(numeric)
    with database.read() as connection:
        change = last_change(connection)
        for table in _parts(connection, entries.c.number, cells, types, shown, progress):
            gathered.add(table)
        count = gathered.count
        # The words of what is not shown: a search needs to know that they exist.
        hidden = {"number": pa.int64(), "search_text": pa.string()}
        for table in _parts(connection, entries.c.number, [entries.c.number, entries.c.search_text], hidden, ~shown):
            gathered.terms.add(_column(table, "search_text"))
        found = gathered.columns(change)
        assert len(found) == count
        _add_measured(connection, found)
    return found


class _Gathered:
    """The columns as far as they are read."""

    def __init__(self, numeric: list[str]) -> None:
        self.count = 0
        self.terms = Builder()
        self._numbers: list[Integers] = []
        self._numeric: dict[str, list[Floats | None]] = {name: [] for name in numeric}
        self._codes: dict[str, list[Codes]] = {name: [] for name in FACETS}
        self._values: dict[str, dict[str | None, int]] = {name: {None: UNKNOWN} for name in FACETS}

    def add(self, table: pa.Table) -> None:
        """A part, in the order of numbers."""
        self._numbers.append(_column(table, "number").to_numpy(zero_copy_only=False))
        self.count += len(table)
        for name, parts in self._numeric.items():
            column = _column(table, name)
            empty = column.null_count == len(column)
            parts.append(None if empty else column.to_numpy(zero_copy_only=False).astype(np.float64))
        for name, codes in self._codes.items():
            column, known = _column(table, name), self._values[name]
            # The last one is where missing values (-1) lead.
            lookup = [known.setdefault(value, len(known)) for value in column.dictionary.to_pylist()] + [UNKNOWN]
            indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            codes.append(np.array(lookup, dtype=_least(len(known)))[indices])
        self.terms.add(_column(table, "search_text"))

    def columns(self, change: int) -> Columns:
        """All that was added."""
        lengths = [len(part) for part in self._numbers]
        numeric, present = {}, set()
        for name in list(self._numeric):
            parts = self._numeric.pop(name)
            if all(part is None for part in parts):
                numeric[name] = np.broadcast_to(np.nan, self.count)  # takes no room
                continue
            present.add(name)
            filled = [np.full(n, np.nan) if part is None else part for part, n in zip(parts, lengths, strict=True)]
            numeric[name] = np.concatenate(filled)
        facets = {}
        for name in FACETS:
            values = self._values.pop(name)
            codes = _joined(self._codes.pop(name), np.uint8)
            several = codebook()[name].several
            facets[name] = _spread(name, values, codes) if several else Facet(name, _texts(values), codes)
        terms = self.terms.done()
        return Columns(change, _joined(self._numbers, np.int64), numeric, facets, terms, known=frozenset(present))


def _parts(
    connection: Connection,
    number: sa.Column[int],
    cells: list[sa.ColumnElement[Any]],
    types: dict[str, pa.DataType],
    where: sa.ColumnElement[bool],
    progress: Progress = lambda done, total: None,
) -> Iterator[pa.Table]:
    """Rows in the order of their numbers, as tables; the next part is read while one is parsed."""
    sqlite = connection.dialect.name == "sqlite"
    pattern = ",".join(["%s"] * len(cells))
    line = (sa.func.printf if sqlite else sa.func.format)(pattern, *(_cell(cell, sqlite) for cell in cells))
    last = int(connection.execute(sa.select(sa.func.max(number))).scalar() or 0)

    def statement(first: int) -> sa.Select[Any]:
        rows = sa.select(number.label("n"), line.label("line")).where(where, number > first, number <= first + _PART)
        ordered = rows.order_by(number).subquery()
        if sqlite:
            return sa.select(sa.func.group_concat(ordered.c.line, "\n"))
        newline: Any = sa.dialects.postgresql.aggregate_order_by(sa.literal_column(r"E'\n'"), ordered.c.n)
        return sa.select(sa.func.string_agg(ordered.c.line, newline))

    with ThreadPoolExecutor(1) as parser:
        waiting: list[Future[pa.Table]] = []
        for first in range(0, last, _PART):
            text = connection.execute(statement(first)).scalar()
            if text:
                waiting.append(parser.submit(_parsed, text, types))
            while len(waiting) >= _WAITING:
                yield waiting.pop(0).result()
            progress(min(first + _PART, last), last)
        for future in waiting:
            yield future.result()


def _cell(cell: sa.ColumnElement[Any], sqlite: bool) -> sa.ColumnElement[Any]:
    if sqlite and isinstance(cell.type, sa.Float):
        # As many digits as tell every number from its neighbours.
        return sa.case((cell.is_(None), sa.literal_column("''")), else_=sa.func.printf("%!.17g", cell))
    return sa.func.coalesce(cell, sa.literal_column("''")) if sqlite else cell


def _quoted(cell: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A text as CSV has it, so that an empty one is told from a missing one, and commas do no harm."""
    mark: sa.ColumnElement[Any] = sa.literal_column("'\"'")
    return mark.op("||")(sa.func.replace(cell, mark, sa.literal_column("'\"\"'"))).op("||")(mark)


def _parsed(text: str, types: dict[str, pa.DataType]) -> pa.Table:
    raw = text.encode()
    return pyarrow.csv.read_csv(
        pa.py_buffer(raw),
        # In one block: what holds a line break must not be cut in two.
        read_options=pyarrow.csv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(raw) + 1),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )


def _column(table: pa.Table, name: str) -> Any:
    """A column as one array (a table of one part can hold it as several)."""
    column = table.column(name).unify_dictionaries().combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _texts(known: Iterable[str | None]) -> tuple[str, ...]:
    return tuple("" if value is None else value for value in known)


def _joined(parts: list[Any], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _least(count: int) -> type[np.unsignedinteger]:
    """The smallest numbers that tell so many values apart."""
    return np.uint8 if count <= 1 << 8 else np.uint16 if count <= 1 << 16 else np.uint32


def _spread(name: str, forms: Iterable[str | None], codes: Codes) -> Facet:
    """A facet of several values from the numbers of whole lists (JSON): a million of them take few forms."""
    known: dict[Any, int] = {None: UNKNOWN}
    lists = [
        np.array([known.setdefault(item, len(known)) for item in (json.loads(form) if form else ()) or ()] or [UNKNOWN])
        for form in forms
    ]
    lengths = np.array([len(items) for items in lists])
    repeats = lengths[codes]
    owners = np.repeat(np.arange(len(codes), dtype=np.int32), repeats)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    within = np.arange(len(owners)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    flat = np.concatenate(lists).astype(_least(len(known)))
    return Facet(name, _texts(known), flat[np.repeat(starts[codes], repeats) + within], owners)


def _add_measured(connection: Connection, found: Columns) -> None:
    """Measured values as columns; a duplicate's count for the entry that stands for it, ours before published ones."""
    twin = entries.alias("twin")
    linked = sa.select(twin.c.number, entries.c.number).join(entries, entries.c.id == twin.c.duplicate_of)
    pairs = np.array(sorted(map(tuple, connection.execute(linked))), dtype=np.int64).reshape(-1, 2)
    cells = [measurements.c.entry, _quoted(measurements.c.name), measurements.c.value]
    types = {"entry": pa.int64(), "name": pa.dictionary(pa.int32(), pa.string()), "value": pa.float64()}
    values: dict[str, Floats] = {}
    for own in (False, True):  # a later value takes an earlier one's place
        by = measurements.c.measured_by
        current = sa.and_(measurements.c.ended.is_(None), by == "trial" if own else by != "trial")
        for table in _parts(connection, measurements.c.number, cells, types, current):
            owners = _column(table, "entry").to_numpy(zero_copy_only=False)
            owners = _replaced(owners, pairs)
            places = np.minimum(np.searchsorted(found.numbers, owners), max(len(found) - 1, 0))
            inside = found.numbers[places] == owners if len(found) else np.zeros(len(owners), dtype=bool)
            names = _column(table, "name")
            codes = names.indices.to_numpy(zero_copy_only=False)
            numbers = _column(table, "value").to_numpy(zero_copy_only=False)
            for code, name in enumerate(names.dictionary.to_pylist()):
                here = inside & (codes == code)
                if here.any():
                    values.setdefault(name, np.full(len(found), np.nan))[places[here]] = numbers[here]
    names_found = sorted(values, key=lambda name: (-int(np.isfinite(values[name]).sum()), name))
    found.measured = tuple(names_found)
    found.numeric |= {name: values[name] for name in names_found}
    found.known |= values.keys()


def _replaced(owners: Integers, pairs: Integers) -> Integers:
    """Row numbers, each represented one by that of the entry that stands for it."""
    if not len(pairs):
        return owners
    at = np.minimum(np.searchsorted(pairs[:, 0], owners), len(pairs) - 1)
    return np.where(pairs[at, 0] == owners, pairs[at, 1], owners)
