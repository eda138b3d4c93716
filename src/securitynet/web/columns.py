"""The catalog's columns in memory: what facets, orders and plots need of a million entries, as arrays.

A search of the database gives a page quickly, but counting what matches, and how it divides by dataset, means looking
at every row. Here a million rows are a few arrays; a condition is a mask, and a count one pass over numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from securitynet.catalog.codebook import codebook
from securitynet.catalog.database import Database
from securitynet.catalog.tables import changes, entries, measurements
from securitynet.catalog.text import code_term

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

FACETS = (
    "dataset", "family", "purpose", "task_type", "architecture_type", "source", "topic_category", "publisher_type",
    "membership", "venue_type", "countries", "elements", "head", "threat", "license",
)  # fmt: skip
_CHUNK = 20_000
UNKNOWN = 0
"""Number of the value of entries that have none."""


@dataclass(frozen=True, eq=False)
class Facet:
    """A code's values over all entries.

    Attributes:
        name: The code.
        values: Distinct values; number 0 stands for "not known".
        codes: Number of a value, per entry; per entry and value if an entry can have several.
        owners: Of codes with several values an entry: whose value it is, as a position; None for the others.
    """

    name: str
    values: tuple[str, ...]
    codes: Integers
    owners: Integers | None = None

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Value -> its number."""
        return {value: number for number, value in enumerate(self.values) if number != UNKNOWN}

    @functools.cached_property
    def terms(self) -> dict[str, list[int]]:
        """Search term -> numbers of the values that have it."""
        found: dict[str, list[int]] = {}
        for value, number in self.numbers.items():
            found.setdefault(code_term(self.name, value), []).append(number)
        return found

    def counts(self, chosen: Mask, positions: Integers) -> Integers:
        """How many of the chosen entries have each value.

        Args:
            chosen: N, which entries.
            positions: The same as positions.
        """
        if self.owners is not None:
            codes = self.codes[chosen[self.owners]]
        else:
            # A lookup of few is cheaper than a mask over all.
            codes = self.codes if len(positions) == len(chosen) else self.codes[positions]
        return np.bincount(codes, minlength=len(self.values))

    def having(self, wanted: Sequence[bool] | Mask, size: int) -> Mask:
        """Which entries have one of the wanted values (by number), N."""
        hit = np.asarray(wanted, dtype=bool)[self.codes]
        if self.owners is None:
            return hit
        found = np.zeros(size, dtype=bool)
        found[self.owners[hit]] = True
        return found


@dataclass(eq=False)
class Columns:
    """One state of the catalog.

    Attributes:
        change: Number of the last change that it holds.
        numbers: Row numbers of the N entries, ascending; those withdrawn or represented by another are not among them.
        numeric: Code or measured name -> N values, NaN where not known.
        facets: Code -> its values.
        measured: Names of measured values, the most frequent first.
    """

    change: int
    numbers: Integers
    numeric: dict[str, Floats]
    facets: dict[str, Facet]
    measured: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def mask(self, numbers: Integers) -> Mask:
        """Which entries have these row numbers, N; numbers of others are passed over."""
        mask = np.zeros(len(self), dtype=bool)
        if len(self):
            found = np.searchsorted(self.numbers, numbers)
            found[found == len(self)] = 0
            mask[found[self.numbers[found] == numbers]] = True
        return mask


def last_change(connection: Connection) -> int:
    """Number of the last change of the catalog; 0 if there was none."""
    return int(connection.execute(sa.select(sa.func.max(changes.c.number))).scalar() or 0)


def read(database: Database) -> Columns:
    """Read the columns of all entries, in one transaction."""
    book = codebook()
    numeric = [name for name, info in book.items() if info.numeric]
    plain = [name for name in FACETS if not book[name].several]
    several = [name for name in FACETS if book[name].several]
    # Lists stay text here: a million of them take few forms, and each form is parsed once.
    columns = [entries.c[name] for name in (*numeric, *plain)] + [sa.cast(entries.c[name], sa.Text) for name in several]
    with database.read() as connection:
        change = last_change(connection)
        statement = (
            sa.select(entries.c.number, *columns)
            .where(entries.c.duplicate_of.is_(None), entries.c.withdrawn.is_(False))
            .order_by(entries.c.number)
        )
        numbers: list[Integers] = []
        values: dict[str, list[Any]] = {name: [] for name in (*numeric, *plain, *several)}
        known: dict[str, dict[Any, int]] = {name: {None: UNKNOWN} for name in (*plain, *several)}
        for rows in _chunks(connection, statement):
            first, *rest = zip(*rows, strict=True)
            numbers.append(np.array(first, dtype=np.int64))
            for name, column in zip(values, rest, strict=True):
                values[name].append(
                    np.array(column, dtype=np.float64) if name in numeric else _coded(column, known[name])
                )
        found = Columns(
            change=change,
            numbers=np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64),
            numeric={name: _joined(values[name], np.float64) for name in numeric},
            facets={name: Facet(name, _texts(known[name]), _joined(values[name], np.int64)) for name in plain},
        )
        for name in several:
            found.facets[name] = _spread(name, known[name], _joined(values[name], np.int64))
        found.facets = {name: found.facets[name] for name in FACETS}
        _add_measured(connection, found)
    return found


def numbers_of(database: Database, selection: sa.Select[Any]) -> Integers:
    """The row numbers that a selection of ``number`` finds.

    The database joins them to one text: a hundred thousand rows handed over one by one take ten times as long.
    """
    matching = selection.subquery()
    number = sa.cast(matching.c.number, sa.Text)
    joined = sa.func.group_concat(number) if database.sqlite else sa.func.string_agg(number, ",")
    return _numbers(database, sa.select(joined).select_from(matching))


def order_by_text(database: Database, name: str) -> Integers:
    """Row numbers of all entries with this code, in its order."""
    column = entries.c[name]
    if database.sqlite:
        ordered = sa.select(entries.c.number).where(column.is_not(None)).order_by(column, entries.c.number).subquery()
        return _numbers(database, sa.select(sa.func.group_concat(ordered.c.number)))
    text = sa.cast(entries.c.number, sa.Text)
    joined = sa.func.string_agg(
        text, sa.dialects.postgresql.aggregate_order_by(sa.literal_column("','"), column, entries.c.number)
    )
    return _numbers(database, sa.select(joined).where(column.is_not(None)))


def _numbers(database: Database, statement: sa.Select[Any]) -> Integers:
    with database.read() as connection:
        text = connection.execute(statement).scalar()
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.zeros(0, dtype=np.int64)


def _chunks(connection: Connection, statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    result = connection.execution_options(yield_per=_CHUNK).execute(statement)
    while rows := result.fetchmany(_CHUNK):
        yield rows


def _coded(column: Sequence[Any], known: dict[Any, int]) -> Integers:
    return np.array([known.setdefault(value, len(known)) for value in column], dtype=np.int64)


def _texts(known: dict[Any, int]) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in known)


def _joined(parts: list[Any], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _spread(name: str, forms: dict[Any, int], codes: Integers) -> Facet:
    """A facet of several values from the numbers of whole lists."""
    known: dict[Any, int] = {None: UNKNOWN}
    lists = [
        np.array([known.setdefault(item, len(known)) for item in (json.loads(form) if form else ()) or ()] or [UNKNOWN])
        for form in forms
    ]
    lengths = np.array([len(items) for items in lists])
    repeats = lengths[codes]
    owners = np.repeat(np.arange(len(codes)), repeats)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    within = np.arange(len(owners)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    flat = np.concatenate(lists).astype(np.int64)
    return Facet(name, _texts(known), flat[np.repeat(starts[codes], repeats) + within], owners)


def _add_measured(connection: Connection, found: Columns) -> None:
    """Measured values as columns; a duplicate's count for the entry that stands for it, ours before published ones."""
    twin = entries.alias("twin")
    linked = sa.select(twin.c.number, entries.c.number).join(entries, entries.c.id == twin.c.duplicate_of)
    stands = {row[0]: row[1] for row in connection.execute(linked)}
    statement = (
        sa.select(measurements.c.entry, measurements.c.name, measurements.c.value)
        .where(measurements.c.ended.is_(None))
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )
    values: dict[str, Floats] = {}
    for rows in _chunks(connection, statement):
        owners = np.array([stands.get(row[0], row[0]) for row in rows], dtype=np.int64)
        places = np.searchsorted(found.numbers, owners)
        inside = (places < len(found)) & (found.numbers[np.minimum(places, len(found) - 1)] == owners)
        for place, ok, (_, name, value) in zip(places, inside, rows, strict=True):
            if ok:
                if name not in values:
                    values[name] = np.full(len(found), np.nan)
                values[name][place] = value
    names = sorted(values, key=lambda name: (-int(np.isfinite(values[name]).sum()), name))
    found.measured = tuple(names)
    found.numeric |= {name: values[name] for name in names}
