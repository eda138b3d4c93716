"""Searching the columns in memory: which entries, how many, in what order, and how they divide by facet."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import code
from securitynet.catalog.database import CatalogError
from securitynet.catalog.known import dataset_name
from securitynet.catalog.query import Query
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import entry_of
from securitynet.catalog.tables import entries
from securitynet.catalog.text import code_term
from securitynet.web import columns, ranges, reading, snapshot
from securitynet.web.columns import UNKNOWN, Columns, Facet, Floats, Integers, Mask, Places
from securitynet.web.kept import Kept
from securitynet.web.state import PER_PAGE, State

_LOOK_AGAIN = 2.0
"""Seconds for which the columns are taken to be current."""

_MASKS = 400
_FOUND = 12
"""Whole masks that are kept: with their positions up to nine million bytes each at a million entries."""

_ORDERS = 24
"""Orders and logarithms that are kept: four or eight million bytes each."""

_COUNTED = 1000
_STRETCH = 1 << 15
"""Entries of an order that are looked at at a time."""

_PLOTS = 32
_ORDERED = ("claimed_accuracy", "year", "parameters", "name")
"""Codes whose orders are made, and kept on disk, before the first visitor asks for them."""

_SHOWN = 8
_MOST_SHOWN = 24


@dataclass(frozen=True)
class Choice:
    """A value of a facet, as it is shown: how many entries there would be with it, and whether it is chosen."""

    value: str
    count: int
    chosen: bool


@dataclass(frozen=True)
class FacetShown:
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
class Found:
    """What a search finds.

    Attributes:
        columns: The state of the catalog that was searched.
        chosen: N, which entries match.
    """

    columns: Columns
    chosen: Mask

    @functools.cached_property
    def positions(self) -> Integers:
        """The same, as positions."""
        return np.flatnonzero(self.chosen)

    @functools.cached_property
    def total(self) -> int:
        """How many match."""
        return int(np.count_nonzero(self.chosen))


class Search:
    """Searches one catalog, and keeps its columns current.

    Args:
        catalog: Where; it is only read.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._lock = threading.Lock()
        self._masks: Kept[Any] = Kept(_MASKS)
        self._orders: Kept[Any] = Kept(_ORDERS)
        self._found: Kept[Found] = Kept(_FOUND)
        self._facets: Kept[tuple[FacetShown, ...]] = Kept(_COUNTED)
        self.plots: Kept[Any] = Kept(_PLOTS)
        self._columns: Columns | None = None
        self._failure: Exception | None = None
        self._looked = time.monotonic()
        self._reading = True
        self._ready = threading.Event()
        # In the background: pages that need no columns are there at once, and the others wait for them.
        threading.Thread(target=self.refresh, daemon=True).start()

    @property
    def columns(self) -> Columns:
        """The columns. If the catalog has changed, new ones are read beside, and the old ones serve until then.

        Raises:
            CatalogError: If they cannot be read.
        """
        self._ready.wait()
        with self._lock:
            due = not self._reading and time.monotonic() - self._looked > _LOOK_AGAIN
            if due:
                self._looked = time.monotonic()
        if due:
            changed = self._columns is None
            if self._columns is not None:
                with self.catalog.database.read() as connection:
                    changed = reading.last_change(connection) != self._columns.change
            with self._lock:
                start = changed and not self._reading
                self._reading = self._reading or start
            if start:
                threading.Thread(target=self.refresh, daemon=True).start()
        if self._columns is None:
            raise CatalogError(f"The catalog could not be read: {self._failure}.")
        return self._columns

    def refresh(self) -> None:
        """Read the columns anew, or map them from where they were kept."""
        database = self.catalog.database
        try:
            self._columns = snapshot.load(database) or snapshot.save(database, self._read())
            self._failure = None
        except Exception as error:  # whoever asks is told, and the next one who asks makes it be tried again
            self._failure = error
        finally:
            self._looked = time.monotonic()
            self._reading = False
            self._ready.set()

    def _read(self) -> Columns:
        read = reading.read(self.catalog.database)
        read.orders = {name: columns.order(self.catalog.database, read, name) for name in _ORDERED}
        return read

    def query(self, state: State) -> Query:
        """The catalog's own query for a state: says whether it makes sense, and serves downloads.

        Raises:
            ConfigurationError: If it makes none.
            UnknownName: If a name is not known.
        """
        return self.catalog.query(state.text, sort=state.sort or None, filters=self._filters(state))

    def find(self, state: State) -> Found:
        """Which entries match, order and page aside."""
        current = self.columns
        key = (current.change, state.text, tuple(sorted(state.filters.items())))
        return self._found.get(key, lambda: self._find(current, state))

    def page(self, state: State, per_page: int = PER_PAGE) -> tuple[Found, list[CatalogEntry]]:
        """What matches, and the entries of one page in their order."""
        self.query(state)
        found = self.find(state)
        return found, self.rows(self.ordered(found, state.sort, (state.page - 1) * per_page, per_page))

    def ordered(self, found: Found, sort: str, start: int, count: int) -> Integers:
        """Row numbers of a stretch of what matches; entries without the value that is sorted by come last."""
        here = found.columns
        if not sort:
            return here.numbers[found.positions[start : start + count]]
        known, rest = self._order(here, code(sort.lstrip("-")).name)
        if sort.startswith("-"):
            known = known[::-1]
        pieces: list[Places] = []
        wanted = start + count
        for order in (known, rest):
            # Of many matches a page is soon full: most of the order need not be looked at.
            for first in range(0, len(order), _STRETCH):
                stretch = order[first : first + _STRETCH]
                pieces.append(stretch if found.total == len(here) else stretch[found.chosen[stretch]])
                wanted -= len(pieces[-1])
                if wanted <= 0:
                    break
            if wanted <= 0:
                break
        inside = np.concatenate(pieces) if pieces else known[:0]
        page: Integers = here.numbers[inside[start : start + count]]
        return page

    def rows(self, numbers: Integers) -> list[CatalogEntry]:
        """The entries with these row numbers, in this order."""
        wanted = [int(number) for number in numbers]
        with self.catalog.database.read() as connection:
            statement = sa.select(entries).where(entries.c.number.in_(wanted))
            rows = {row["number"]: row for row in connection.execute(statement).mappings().all()}
        return [entry_of(rows[number]) for number in wanted if number in rows]

    def names(self, numbers: Integers) -> dict[int, tuple[str, str, str | None]]:
        """Row number -> id, name and dataset."""
        found: dict[int, tuple[str, str, str | None]] = {}
        with self.catalog.database.read() as connection:
            for start in range(0, len(numbers), 5000):
                # Written out: thousands of parameters take longer to bind than the rows to find.
                part = ",".join(str(int(number)) for number in numbers[start : start + 5000])
                what = (entries.c.number, entries.c.id, entries.c.name, entries.c.dataset)
                statement = sa.select(*what).where(sa.text(f"entries.number IN ({part})"))
                found.update({row[0]: (row[1], row[2], row[3]) for row in connection.execute(statement).all()})
        return found

    def accuracies(self, given: list[CatalogEntry]) -> dict[str, tuple[float | None, str]]:
        """Id -> test accuracy, measured if it was, else as claimed, and which of the two it is."""
        here = self.columns
        column = here.numeric.get("accuracy.test")
        found: dict[str, tuple[float | None, str]] = {one.id: (one.claimed_accuracy, "claimed") for one in given}
        if column is None:
            return found
        statement = sa.select(entries.c.id, entries.c.number).where(entries.c.id.in_(list(found)))
        with self.catalog.database.read() as connection:
            for identifier, number in connection.execute(statement):
                place = int(np.searchsorted(here.numbers, number))
                if place < len(here) and here.numbers[place] == number and np.isfinite(column[place]):
                    found[identifier] = (float(column[place]), "measured")
        return found

    def number_of(self, identifier: str) -> int:
        """Row number of the entry with this id; -1 if there is none."""
        with self.catalog.database.read() as connection:
            found = connection.execute(sa.select(entries.c.number).where(entries.c.id == identifier)).scalar()
        return -1 if found is None else int(found)

    def facets(self, state: State) -> tuple[FacetShown, ...]:
        """How what matches divides; each facet counts as if nothing of it were chosen yet."""
        current = self.columns
        key = (current.change, state.text, tuple(sorted(state.filters.items())))
        return self._facets.get(key, lambda: self._count(current, state))

    def _count(self, current: Columns, state: State) -> tuple[FacetShown, ...]:
        shown = []
        for facet in current.facets.values():
            if len(facet.values) < 2:
                continue
            found = self.find(state.without(facet.name))
            wanted = self._wanted(facet, state.filters.get(facet.name, ()))
            counts = facet.counts(found.chosen, found.positions)
            divided = _shown(facet, counts, wanted)
            if divided.choices:
                shown.append(divided)
        return tuple(shown)

    def _find(self, current: Columns, state: State) -> Found:
        masks = [self._masked(current, "", (state.text,))] if state.text else []
        masks += [self._masked(current, name, values) for name, values in state.filters.items()]
        if not masks:
            return Found(current, np.ones(len(current), dtype=bool))
        chosen = masks[0].copy()
        for mask in masks[1:]:
            chosen &= mask
        return Found(current, chosen)

    def _masked(self, current: Columns, name: str, values: tuple[str, ...]) -> Mask:
        """Which entries fulfil one condition; kept as bits, for there are many conditions."""
        key = (current.change, name, values)
        bits = self._masks.get(key, lambda: np.packbits(self._mask(current, name, values)))
        return np.unpackbits(bits, count=len(current)).view(bool)

    def _mask(self, current: Columns, name: str, values: tuple[str, ...]) -> Mask:
        state = State(filters={name: values}) if name else State(text=values[0])
        query = self.query(state)  # raises if it makes no sense
        info = code(name) if name else None
        if info is not None and info.numeric and len(values) == 1:
            return ranges.inside(current.numeric[name], values[0])
        facet = current.facets.get(name)
        if facet is not None and (facet.owners is None or not values[0].startswith("!")):
            wanted = self._wanted(facet, values)
            if values[0] == "any" and len(values) == 1:
                wanted = np.ones(len(facet.values), dtype=bool)
                wanted[UNKNOWN] = False
            return facet.having(wanted, len(current))
        if not name:
            return current.terms.having(query.words)[: len(current)]
        if query.terms is not None:
            groups = [current.terms.any_of(group) for group in query.terms]
            return np.asarray(np.logical_and.reduce(groups))[: len(current)]
        return current.mask(columns.numbers_of(self.catalog.database, query.numbers()))

    def _wanted(self, facet: Facet, values: tuple[str, ...]) -> Mask:
        """Which values of a facet are meant by filter texts; the filter language forgets case and punctuation."""
        wanted = np.zeros(len(facet.values), dtype=bool)
        if values == ("none",):
            wanted[UNKNOWN] = True
            return wanted
        texts = list(values)
        if len(values) == 1 and values[0] not in facet.numbers:
            texts = [part.strip() for part in values[0].removeprefix("!").split(",") if part.strip()]
        for text in texts:
            name = dataset_name(text) if facet.name == "dataset" else text
            wanted[facet.terms.get(code_term(facet.name, name), [])] = True
        return wanted if not values or not values[0].startswith("!") or values[0] in facet.numbers else ~wanted

    def _filters(self, state: State) -> dict[str, Any]:
        """Filters as the catalog takes them: a text in its language, or a list of whole values."""
        return {
            name: values[0] if len(values) == 1 and not self._whole(name, values[0]) else list(values)
            for name, values in state.filters.items()
        }

    def _whole(self, name: str, text: str) -> bool:
        """Whether a text is a facet's value as it stands, be there commas in it or not."""
        facet = self.columns.facets.get(name)
        return facet is not None and text != "" and text in facet.numbers

    def logarithm(self, current: Columns, name: str) -> Floats:
        """The decimal logarithms of a column; NaN where it is not known or not positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            kept: Floats = self._orders.get(
                ("log", current.change, name),
                lambda: np.log10(np.where(current.numeric[name] > 0, current.numeric[name], np.nan)),
            )
        return kept

    def _order(self, current: Columns, name: str) -> tuple[Places, Places]:
        """Positions in the order of a code, and positions of those without it."""
        kept: tuple[Places, Places] = self._orders.get(
            ("order", current.change, name), lambda: columns.order(self.catalog.database, current, name)
        )
        return kept


def _shown(facet: Facet, counts: Integers, wanted: Mask) -> FacetShown:
    order = sorted(
        (number for number in range(1, len(counts)) if counts[number] or wanted[number]),
        key=lambda number: (not wanted[number], -int(counts[number]), facet.values[number]),
    )
    choices = [Choice(facet.values[n], int(counts[n]), bool(wanted[n])) for n in order[:_MOST_SHOWN]]
    return FacetShown(facet.name, tuple(choices[:_SHOWN]), tuple(choices[_SHOWN:]), max(len(order) - _MOST_SHOWN, 0))
