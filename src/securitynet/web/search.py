"""Searching the catalog's columns: which models match, how many, in what order, and how they divide by facet.

Words, and filters on codes that the columns do not hold, are answered by the database and its full-text search;
the rest by Polars, which counts fifteen facets of a million models in a few milliseconds (docs/web.md has the figures).
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa
from numpy.typing import NDArray

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import code, codebook, facet_codes
from securitynet.catalog.database import CatalogError, Database
from securitynet.catalog.filters import Filter, parse_filter
from securitynet.catalog.query import Query
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import entry_of
from securitynet.catalog.tables import entries
from securitynet.catalog.text import code_term
from securitynet.web import reading
from securitynet.web.cache import ResultCache
from securitynet.web.state import PER_PAGE, State

Integers = NDArray[np.int64]

_LOOK_AGAIN = 2.0
"""Seconds for which the columns are taken to be current."""

_MASKS, _MATCHES, _COUNTS, _PLOTS = 400, 400, 1000, 32
"""Results that are kept; a mask takes a bit a model."""

_SHOWN, _MOST_SHOWN = 8, 24
_UNRANKED = 1 << 40


@dataclass(frozen=True)
class Choice:
    """A value of a facet: how many models there would be with it, and whether it is chosen."""

    value: str
    count: int
    chosen: bool


@dataclass(frozen=True)
class Facet:
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
    """What a search matches: ``mask`` says it of each row of the snapshot's frame, ``total`` counts."""

    snapshot: Snapshot
    mask: pl.Series
    total: int


class Snapshot:
    """One state of the catalog, and the results computed from it so far.

    Args:
        database: Where the rest is looked up.
        change: Number of the last change that it holds.
        frame: From `securitynet.web.reading`.
    """

    def __init__(self, database: Database, change: int, frame: pl.DataFrame) -> None:
        self.database = database
        self.change = change
        self.frame = frame
        self.plots: ResultCache[Any] = ResultCache(_PLOTS)
        self._masks: ResultCache[pl.Series] = ResultCache(_MASKS)
        self._matches: ResultCache[Matches] = ResultCache(_MATCHES)
        self._facets: ResultCache[tuple[Facet, ...]] = ResultCache(_COUNTS)

    def __len__(self) -> int:
        return self.frame.height

    @functools.cached_property
    def numeric(self) -> dict[str, list[str]]:
        """What can stand on an axis, by kind: measured names, and codes that some model has."""
        known = [name for name, dtype in self.frame.schema.items() if dtype == pl.Float64]
        return {
            "measured": [name for name in known if name not in codebook()],
            "annotated": [name for name in known if name in codebook()],
        }

    @functools.cached_property
    def facet_values(self) -> dict[str, dict[str, str]]:
        """Facet -> value -> its search term."""
        values: dict[str, Iterable[str]] = {}
        for name in facet_codes():
            dtype: Any = self.frame.schema[name]
            values[name] = (dtype.inner if dtype == pl.List else dtype).categories
        return {name: {value: code_term(name, value) for value in several} for name, several in values.items()}

    def filters_of(self, state: State) -> dict[str, str | list[str]]:
        """Filters as the catalog takes them: a text in its language, or a list of whole values, commas and all."""
        return {
            name: list(values) if len(values) > 1 or values[0] in self.facet_values.get(name, ()) else values[0]
            for name, values in state.filters.items()
        }

    def match(self, state: State) -> Matches:
        """Which models match, order and page aside."""
        return self._matches.get(_key(state), lambda: self._match(state))

    def facets(self, state: State) -> tuple[Facet, ...]:
        """How what matches divides; each facet counts as if nothing of it were chosen yet."""
        return self._facets.get(_key(state), lambda: self._count(state))

    def ordered(self, matches: Matches, sort: str, start: int, count: int) -> Integers:
        """Row numbers of a stretch of what matches; models without the value that is sorted by come last."""
        if not sort:
            return self.frame["number"].filter(matches.mask)[start : start + count].to_numpy()
        rank = pl.col(f"order:{code(sort.lstrip('-')).name}").cast(pl.Int64)
        key = pl.coalesce(-rank if sort.startswith("-") else rank, _UNRANKED + pl.int_range(pl.len()))
        table = self.frame.select("number", rank).filter(matches.mask).select("number", key.alias("key"))
        return table.bottom_k(start + count, by="key").sort("key")["number"][start:].to_numpy()

    def places(self, numbers: list[int]) -> list[int | None]:
        """Rows of the frame that have these numbers; None for those that searches do not show."""
        column = self.frame["number"]
        found = (int(place) for place in column.search_sorted(pl.Series(numbers, dtype=pl.Int64)))
        return [
            n if n < len(column) and column[n] == number else None for n, number in zip(found, numbers, strict=True)
        ]

    def _match(self, state: State) -> Matches:
        filters = self.filters_of(state)
        conditions = [self._mask("", state.text)] if state.text else []
        conditions += [self._mask(name, value) for name, value in filters.items()]
        mask = functools.reduce(lambda one, other: one & other, conditions, pl.repeat(True, len(self), eager=True))
        return Matches(self, mask, int(mask.sum()))

    def _mask(self, name: str, value: str | list[str]) -> pl.Series:
        """Which models fulfil one condition: words, or a filter on a code."""
        return self._masks.get((name, str(value)), lambda: self._compute_mask(name, value))

    def _compute_mask(self, name: str, value: str | list[str]) -> pl.Series:
        wanted = parse_filter(code(name), value) if name else None
        if wanted is not None and name in self.frame.columns:
            return self.frame.select(self._expression(wanted).fill_null(False)).to_series()
        # All states of an entry alike: the frame holds only those that are shown.
        query = Query(self.database, value if isinstance(value, str) and not name else "",
                      {name: value} if name else None, duplicates=True, withdrawn=True)  # fmt: skip
        return pl.Series(np.isin(self.frame["number"].to_numpy(), _numbers(self.database, query)))

    def _expression(self, wanted: Filter) -> pl.Expr:
        column = pl.col(wanted.info.name)
        if wanted.known is not None:
            return column.is_not_null() if wanted.known else column.is_null()
        if wanted.info.numeric:
            conditions = [_inside(column, part) for part in wanted.ranges]
        elif wanted.info.several:
            conditions = [column.list.contains(value) for value in self._chosen(wanted)]
        else:
            conditions = [column.is_in(self._chosen(wanted))]
        found = pl.any_horizontal(conditions or [pl.repeat(False, pl.len())]).fill_null(False)
        return ~found if wanted.negated else found

    def _chosen(self, wanted: Filter) -> list[str]:
        """The facet's values that a filter names; the filter language forgets case and punctuation."""
        terms = set(wanted.terms)
        return [value for value, term in self.facet_values[wanted.info.name].items() if term in terms]

    def _count(self, state: State) -> tuple[Facet, ...]:
        filters = self.filters_of(state)
        offered = [name for name, values in self.facet_values.items() if values]
        counts: dict[str, dict[str, int]] = {}
        for names, mask in (
            ([name for name in offered if name not in filters], self.match(state).mask),
            *(([name], self.match(state.without(name)).mask) for name in offered if name in filters),
        ):
            # One pass over what matches counts all facets.
            values = [pl.col(name).explode() if codebook()[name].several else pl.col(name) for name in names]
            counted = self.frame.select(names).filter(mask).select(
                value.drop_nulls().value_counts(name="count").implode() for value in values
            )  # fmt: skip
            for name in names:
                pairs = counted[name].explode().drop_nulls().struct.unnest()
                counts[name] = dict(zip(pairs[name].to_list(), pairs["count"].to_list(), strict=True))
        facets = []
        for name in offered:
            wanted = parse_filter(code(name), filters[name]) if name in filters else None
            chosen = set(self._chosen(wanted)) if wanted is not None else set()
            if wanted is not None and wanted.negated:
                chosen = set(self.facet_values[name]) - chosen
            facets.append(_facet(name, dict.fromkeys(chosen, 0) | counts[name], chosen))
        return tuple(facet for facet in facets if facet.choices)


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
        if due and (current is None or reading.last_change(self.catalog.database) != current.change):
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
            self._snapshot = Snapshot(self.catalog.database, *reading.load_frame(self.catalog.database))
            self._failure = None
        except Exception as error:  # visitors are told, and the next one makes it be tried again
            self._failure = error
        finally:
            self._looked = time.monotonic()
            self._reading = False
            self._ready.set()

    def query(self, state: State) -> Query:
        """The catalog's own query for a state: says whether it makes sense.

        Raises:
            ConfigurationError: If it makes none.
            UnknownName: If a name is not known.
        """
        return self.catalog.query(state.text, sort=state.sort or None, filters=self.snapshot.filters_of(state))

    def page(self, state: State, per_page: int = PER_PAGE) -> tuple[Matches, list[CatalogEntry]]:
        """What matches, and the entries of one page in their order."""
        self.query(state)
        snapshot = self.snapshot
        matches = snapshot.match(state)
        numbers = snapshot.ordered(matches, state.sort, (state.page - 1) * per_page, per_page)
        return matches, self.rows(numbers.tolist())

    def rows(self, numbers: list[int]) -> list[CatalogEntry]:
        """The entries with these row numbers, in this order."""
        with self.catalog.database.read() as connection:
            statement = sa.select(entries).where(entries.c.number.in_(numbers))
            rows = {row["number"]: row for row in connection.execute(statement).mappings().all()}
        return [entry_of(rows[number]) for number in numbers if number in rows]

    def names(self, numbers: list[int]) -> dict[int, tuple[str, str, str | None]]:
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

    def accuracies(self, given: list[CatalogEntry]) -> dict[str, tuple[float | None, str]]:
        """Id -> test accuracy, measured if it was, else as claimed, and which of the two it is."""
        snapshot = self.snapshot
        accuracies: dict[str, tuple[float | None, str]] = {e.id: (e.claimed_accuracy, "claimed") for e in given}
        if "accuracy.test" not in snapshot.frame.columns:
            return accuracies
        numbers = self.numbers_of(list(accuracies))
        for identifier, place in zip(numbers, snapshot.places(list(numbers.values())), strict=True):
            measured = None if place is None else snapshot.frame["accuracy.test"][place]
            if measured is not None:
                accuracies[identifier] = (float(measured), "measured")
        return accuracies

    def numbers_of(self, identifiers: list[str]) -> dict[str, int]:
        """Id -> row number, of those ids that there are."""
        statement = sa.select(entries.c.id, entries.c.number).where(entries.c.id.in_(identifiers))
        with self.catalog.database.read() as connection:
            return {identifier: int(number) for identifier, number in connection.execute(statement)}


def _key(state: State) -> tuple[Any, ...]:
    return state.text, tuple(sorted(state.filters.items()))


def _inside(column: pl.Expr, part: Any) -> pl.Expr:
    ends = [column.is_not_null()]
    if part.low is not None:
        ends.append(column > part.low if part.above else column >= part.low)
    if part.high is not None:
        ends.append(column < part.high if part.below else column <= part.high)
    return pl.all_horizontal(ends)


def _facet(name: str, counts: dict[str, int], chosen: set[str]) -> Facet:
    order = sorted(counts, key=lambda value: (value not in chosen, -counts[value], value))
    choices = tuple(Choice(value, counts[value], value in chosen) for value in order[:_MOST_SHOWN])
    return Facet(name, choices[:_SHOWN], choices[_SHOWN:], max(len(order) - _MOST_SHOWN, 0))


def _numbers(database: Database, query: Query) -> Integers:
    """Row numbers that a query finds.

    The database joins them to one text: a hundred thousand rows handed over one by one take ten times as long.
    """
    matching = query.numbers().subquery()
    number = sa.cast(matching.c.number, sa.Text)
    joined = sa.func.group_concat(number) if database.sqlite else sa.func.string_agg(number, ",")
    with database.read() as connection:
        text = connection.execute(sa.select(joined).select_from(matching)).scalar()
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.zeros(0, dtype=np.int64)
