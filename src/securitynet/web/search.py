"""Searching the catalog's columns: which models match, how many, in what order, and how they divide by facet.

Words are looked up in `securitynet.web.term_index`, and filters in `securitynet.web.column_store`; the database answers
filters on codes that the columns do not hold, and gives the rows that a page shows.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import find_code_or_measured, load_codebook
from securitynet.catalog.database import CatalogError, Database
from securitynet.catalog.filters import parse_filter
from securitynet.catalog.names import DISTINGUISHING
from securitynet.catalog.query import Query
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import read_entry
from securitynet.catalog.tables import entries
from securitynet.web import reading
from securitynet.web.cache import ResultCache
from securitynet.web.column_store import Bits, Columns, FacetColumn, Integers, Mask, list_rows
from securitynet.web.state import PER_PAGE, State
from securitynet.web.term_index import TermIndex

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 2.0
"""Seconds for which the columns are taken to be current."""

_MASKS, _MATCHES, _COUNTS, _PLOTS = 400, 12, 1000, 32
"""Results that are cached. A condition's mask takes a bit an entry, whole matches up to eight bytes more."""

_SHOWN, _MOST_SHOWN = 8, 24

_NUMBERED = entries.c.number.in_(sa.bindparam("numbers", expanding=True))
_ENTRIES = sa.select(entries.c.number, *(entries.c[name] for name in load_codebook())).where(_NUMBERED)
_LISTED = ("key", "name", "family", "purpose_detail", "task_type", "claimed_accuracy", "parameters")
_ROWS = sa.select(*(entries.c[name] for name in dict.fromkeys(("number", "id", *_LISTED, *DISTINGUISHING))))
_ROWS = _ROWS.where(_NUMBERED)


@dataclass(frozen=True)
class Choice:
    """A value of a facet: how many models there would be with it, and whether it is chosen."""

    value: str
    count: int
    chosen: bool


@dataclass(frozen=True)
class FacetChoices:
    """A facet beside the results.

    Attributes:
        name: The code.
        choices: The most frequent values.
        more: Further ones, less frequent.
        left_out: How many values are in neither.
    """

    name: str
    choices: tuple[Choice, ...]
    more: tuple[Choice, ...]
    left_out: int


@dataclass(frozen=True, eq=False)
class Matches:
    """What a search matches.

    Attributes:
        snapshot: The state of the catalog that was searched.
        bits: Which entries match.
    """

    snapshot: Snapshot
    bits: Bits

    @functools.cached_property
    def rows(self) -> Integers:
        """Rows of the snapshot's columns that match, ascending."""
        return list_rows(self.bits, len(self.snapshot.columns))

    @property
    def total(self) -> int:
        """How many match."""
        return len(self.rows)


class Snapshot:
    """One state of the catalog, and the results computed from it so far.

    Args:
        database: Answers filters on codes that the columns do not hold.
        frames: What was read from it.

    Attributes:
        change: Number of the last change that the snapshot holds.
        columns: Of all entries that searches show.
        plots: The plots made last.
    """

    def __init__(self, database: Database, frames: reading.Frames) -> None:
        self.change = frames.change
        self.columns = Columns(frames.columns)
        self._database = database
        self._terms = TermIndex(frames.terms, self.columns.numbers)
        self.plots: ResultCache[Any] = ResultCache(_PLOTS)
        self._masks: ResultCache[NDArray[np.uint8]] = ResultCache(_MASKS)
        self._matches: ResultCache[Matches] = ResultCache(_MATCHES)
        self._facets: ResultCache[tuple[FacetChoices, ...]] = ResultCache(_COUNTS)

    def get_filters(self, state: State) -> dict[str, str | list[str]]:
        """Filters as the catalog takes them: a text in its language, or a list of whole values, commas included."""
        facets = self.columns.facets
        return {
            name: list(values)
            if len(values) > 1 or (name in facets and values[0] in facets[name].values)
            else values[0]
            for name, values in state.filters.items()
        }

    def match(self, state: State) -> Matches:
        """The models that match, order and page aside."""
        return self._matches.get(_key(state), lambda: self._match(state))

    def count_facets(self, state: State) -> tuple[FacetChoices, ...]:
        """How the matches are distributed; each facet is counted as if nothing of it were chosen yet."""
        return self._facets.get(_key(state), lambda: self._count_facets(state))

    def sort(self, matches: Matches, order: str, start: int, count: int) -> Integers:
        """Sort matches, and give the numbers in the database of a stretch of them.

        Args:
            matches: From `match`.
            order: Code, with ``-`` before it for descending; nothing for the order of numbers.
            start: First place of the stretch, from 0.
            count: Most numbers to give.
        """
        numbers: Integers = self.columns.numbers[self.columns.sort(matches.rows, order, start, count)]
        return numbers

    def _match(self, state: State) -> Matches:
        conditions = [self._find("", state.text)] if state.text else []
        conditions += [self._find(name, value) for name, value in self.get_filters(state).items()]
        everything = np.packbits(np.ones(len(self.columns), dtype=bool))
        return Matches(self, functools.reduce(np.bitwise_and, conditions, everything))

    def _find(self, name: str, value: str | list[str]) -> Bits:
        """Which models meet one condition: words, or a filter on a code."""
        return self._masks.get((name, str(value)), lambda: np.packbits(self._compute_mask(name, value)))

    def _compute_mask(self, name: str, value: str | list[str]) -> Mask:
        if not name:
            return self._terms.match(str(value))
        mask = self.columns.filter(parse_filter(find_code_or_measured(name), value))
        if mask is None:
            numbers = _read_numbers(self._database, Query(self._database, filters={name: value}))
            mask = np.isin(self.columns.numbers, numbers)
        return mask

    def _count_facets(self, state: State) -> tuple[FacetChoices, ...]:
        filters = self.get_filters(state)
        counted = []
        of_all = self.columns.count_facets(self.match(state).rows)
        for name, facet in self.columns.facets.items():
            counts, chosen = of_all[name], np.zeros(len(facet.values), dtype=bool)
            if name in filters:
                counts = facet.count(self.match(state.without(name)).rows)
                chosen = facet.choose(parse_filter(find_code_or_measured(name), filters[name]))
            counted.append(_rank_values(facet, counts, chosen))
        return tuple(one for one in counted if one.choices)


class Search:
    """Searches one catalog, and keeps its columns current.

    Args:
        catalog: Where; it is only read.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._failure: Exception | None = None
        self._looked = time.monotonic()
        self._reading = True
        self._ready = threading.Event()
        # In the background: pages that need no columns are there at once, and the others wait for them.
        threading.Thread(target=self.refresh, daemon=True).start()

    @property
    def snapshot(self) -> Snapshot:
        """The present state. If the catalog has changed, it is read beside, and the older one serves until then.

        Raises:
            CatalogError: If the catalog cannot be read.
        """
        self._ready.wait()
        with self._lock:
            due = not self._reading and time.monotonic() - self._looked > _LOOK_AGAIN
            if due:
                self._looked = time.monotonic()
        current = self._snapshot
        if due and (current is None or reading.read_last_change(self.catalog.database) != current.change):
            with self._lock:
                start, self._reading = not self._reading, True
            if start:
                threading.Thread(target=self.refresh, daemon=True).start()
        if current is None:
            raise CatalogError(f"The catalog could not be read: {self._failure}.")
        return current

    def refresh(self) -> None:
        """Read the columns anew, or map them from the cache folder."""
        try:
            self._snapshot = Snapshot(self.catalog.database, reading.map_frames(self.catalog.database))
            self._failure = None
        except Exception as error:  # the older state serves on if there is one, and a later request tries again
            logger.warning("The catalog could not be read: %s", error)
            self._failure = error
        finally:
            self._looked = time.monotonic()
            self._reading = False
            self._ready.set()

    def make_query(self, state: State) -> Query:
        """The catalog's own query for a state: says whether it makes sense.

        Raises:
            ConfigurationError: If it makes none.
            UnknownName: If a name is not known.
        """
        return self.catalog.query(state.text, sort=state.sort or None, filters=self.snapshot.get_filters(state))

    def find_page(self, state: State, per_page: int = PER_PAGE) -> tuple[Matches, list[int]]:
        """What matches, and the row numbers of the entries of one page, in their order."""
        self.make_query(state)
        snapshot = self.snapshot
        matches = snapshot.match(state)
        numbers = snapshot.sort(matches, state.sort, (state.page - 1) * per_page, per_page)
        return matches, numbers.tolist()

    def read_entries(self, numbers: list[int]) -> list[CatalogEntry]:
        """The entries with these row numbers, in this order."""
        return [read_entry(row._mapping) for row in self.read_rows(numbers, _ENTRIES)]

    def read_rows(self, numbers: list[int], statement: sa.Select[Any] = _ROWS) -> list[sa.Row[Any]]:
        """The rows with these numbers, in this order; by default with what a list of models shows."""
        with self.catalog.database.read() as connection:
            rows = {row.number: row for row in connection.execute(statement, {"numbers": numbers})}
        return [rows[number] for number in numbers if number in rows]

    def read_names(self, numbers: list[int]) -> dict[int, tuple[str, str, str | None]]:
        """Row number -> id, name and dataset."""
        columns = (entries.c.number, entries.c.id, entries.c.name, entries.c.dataset)
        names: dict[int, tuple[str, str, str | None]] = {}
        with self.catalog.database.read() as connection:
            for start in range(0, len(numbers), 5000):
                # Written out: thousands of parameters take longer to bind than the rows to find.
                part = ",".join(str(int(number)) for number in numbers[start : start + 5000])
                statement = sa.select(*columns).where(sa.text(f"entries.number IN ({part})"))
                names.update({row[0]: (row[1], row[2], row[3]) for row in connection.execute(statement).all()})
        return names

    def find_accuracy(self, number: int, claimed: float | None) -> tuple[float | None, str]:
        """An entry's test accuracy, measured if it was, else as claimed, and which of the two it is.

        Args:
            number: Of its row.
            claimed: The accuracy that its publisher states.
        """
        columns = self.snapshot.columns
        if "accuracy.test" in columns.numeric:
            [row] = columns.find_rows(np.array([number]))
            measured = float(columns.numeric["accuracy.test"][row])
            if row >= 0 and np.isfinite(measured):
                return measured, "measured"
        return claimed, "claimed"


def _key(state: State) -> tuple[Any, ...]:
    return state.text, tuple(sorted(state.filters.items()))


def _rank_values(facet: FacetColumn, counts: Integers, chosen: Mask) -> FacetChoices:
    order = sorted(
        np.flatnonzero(chosen | (counts > 0)).tolist(),
        key=lambda place: (not chosen[place], -counts[place], facet.values[place]),
    )
    choices = tuple(Choice(facet.values[n], int(counts[n]), bool(chosen[n])) for n in order[:_MOST_SHOWN])
    return FacetChoices(facet.name, choices[:_SHOWN], choices[_SHOWN:], max(len(order) - _MOST_SHOWN, 0))


def _read_numbers(database: Database, query: Query) -> Integers:
    """Row numbers that a query matches.

    The database joins them to one text: a hundred thousand rows handed over one by one take ten times as long.
    """
    matching = query.numbers().subquery()
    number = sa.cast(matching.c.number, sa.Text)
    joined = sa.func.group_concat(number) if database.sqlite else sa.func.string_agg(number, ",")
    with database.read() as connection:
        text = connection.execute(sa.select(joined).select_from(matching)).scalar()
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.zeros(0, dtype=np.int64)
