"""The catalog's columns in memory: what facets, orders, words and plots need of a million entries, as arrays.

A search of the database gives a page quickly, but counting what matches, and how it divides by dataset, means looking
at every row. Here a million rows are a few arrays; a condition is a mask, and a count one pass over numbers.
`securitynet.web.reading` reads them, `securitynet.web.snapshot` keeps them on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from securitynet.catalog.database import Database
from securitynet.catalog.tables import entries
from securitynet.catalog.text import code_term
from securitynet.web.terms import Terms

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Places = NDArray[np.int32]
Codes = NDArray[np.unsignedinteger]

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
    codes: Codes
    owners: NDArray[np.int32] | None = None

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

    @functools.cached_property
    def totals(self) -> Integers:
        """How many of all entries have each value."""
        return np.bincount(self.codes, minlength=len(self.values))

    def counts(self, chosen: Mask, positions: Integers) -> Integers:
        """How many of the chosen entries have each value.

        Args:
            chosen: N, which entries.
            positions: The same as positions.
        """
        if len(positions) == len(chosen):
            return self.totals
        # A lookup of few is cheaper than a mask over all.
        codes = self.codes[positions] if self.owners is None else self.codes[chosen[self.owners]]
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
        terms: Under which search terms an entry is found, by position; after the N entries follow the hidden ones
            (withdrawn or represented), whose words are known and find nothing.
        measured: Names of measured values, the most frequent first.
    """

    change: int
    numbers: Integers
    numeric: dict[str, Floats]
    facets: dict[str, Facet]
    terms: Terms
    measured: tuple[str, ...] = ()
    known: frozenset[str] = field(default_factory=frozenset)
    """Names of numeric columns in which some entry has a value."""
    orders: dict[str, tuple[Places, Places]] = field(default_factory=dict)
    """Code -> positions in its order, and positions of the entries without it."""

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


def order(database: Database, current: Columns, name: str) -> tuple[Places, Places]:
    """Positions in the order of a code, and positions of the entries without it."""
    if name in current.orders:
        return current.orders[name]
    if name in current.numeric:
        values = current.numeric[name]
        places = np.argsort(values, kind="stable").astype(np.int32)
        known = int(np.isfinite(values).sum())
        return places[:known], places[known:]
    numbers = order_by_text(database, name)
    found = np.searchsorted(current.numbers, numbers)
    found[found == len(current)] = 0
    present = found[current.numbers[found] == numbers] if len(current) else found[:0]
    rest = np.ones(len(current), dtype=bool)
    rest[present] = False
    return present.astype(np.int32), np.flatnonzero(rest).astype(np.int32)


def numbers_of(database: Database, selection: sa.Select[Any]) -> Integers:
    """The row numbers that a selection of ``number`` finds.

    The database joins them to one text: a hundred thousand rows handed over one by one take ten times as long.
    """
    matching = selection.subquery()
    number = sa.cast(matching.c.number, sa.Text)
    joined = sa.func.group_concat(number) if database.sqlite else sa.func.string_agg(number, ",")
    return _numbers(database, sa.select(joined).select_from(matching))


def order_by_text(database: Database, name: str) -> Integers:
    """Row numbers of all entries with this code, in its order: the database's own, as in its queries."""
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
