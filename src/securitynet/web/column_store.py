"""`Columns`: one state of the catalog as NumPy arrays, on which filters, counts and orders are computed.

The arrays are views of the Polars frame that `securitynet.web.reading` makes. A condition is a boolean array over all
entries; a count is one pass over small integers. Polars' own expressions took five times the processor time for the
same searches, most of it in planning a query per facet (docs/web.md has the figures).
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from securitynet.catalog.codebook import find_code_or_measured, list_facet_codes, load_codebook
from securitynet.catalog.filters import Filter
from securitynet.catalog.text import make_code_term

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]
"""A mask with eight entries an octet, of which the last is filled up with zeros."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN = 0
"""Code of the entries that lack a facet; its text in the frame is empty."""

_MOST_TOGETHER = 1 << 14
"""Combinations of facets that are counted in one pass: as many counters as stay in the processor's cache."""


def list_rows(bits: Bits, count: int) -> Integers:
    """Rows of the entries in a mask of ``count`` bits, ascending; where they are few, empty octets are passed over."""
    octets = np.flatnonzero(bits != 0)
    if 4 * len(octets) > len(bits):
        return np.flatnonzero(np.unpackbits(bits, count=count).view(bool))
    places = np.flatnonzero(np.unpackbits(bits[octets]).view(bool))
    rows: Integers = 8 * octets[places >> 3] + (places & 7)
    return rows


class FacetColumn:
    """The values of one code over N entries.

    Attributes:
        name: The code.
        values: The V distinct values, in the order of their texts.
        terms: Search term of each value; the filter language ignores case and punctuation.
        codes: N, what each entry has: `UNKNOWN`, or the number of a combination of values. An entry has one value of
            most codes, and the combinations of those are the values.
        combinations: How many combinations there are.
    """

    def __init__(self, name: str, column: pl.Series) -> None:
        combinations = [
            (json.loads(text) if load_codebook()[name].several else [text]) if text else []
            for text in _categories(column)
        ]
        self.name = name
        self.values = tuple(sorted({value for values in combinations for value in values}))
        self.terms = tuple(make_code_term(name, value) for value in self.values)
        self.codes: NDArray[np.unsignedinteger] = column.to_physical().to_numpy()
        self.combinations = len(combinations)
        places = {value: place for place, value in enumerate(self.values)}
        # Row by row: the number of a combination, and the number of a value in it.
        pairs = [(number, places[value]) for number, values in enumerate(combinations) for value in values]
        self._owners, self._items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T

    @functools.cached_property
    def totals(self) -> Integers:
        """How many of all entries have each combination."""
        return np.bincount(self.codes, minlength=self.combinations)

    def count(self, rows: Integers) -> Integers:
        """How many of the entries in these rows have each value, V."""
        all_rows = len(rows) == len(self.codes)
        counts = self.totals if all_rows else np.bincount(self.codes.take(rows), minlength=self.combinations)
        return self.count_values(counts)

    def count_values(self, counts: Integers) -> Integers:
        """How many entries have each value, V, by how many have each combination."""
        per_value = np.bincount(self._items, weights=counts[self._owners], minlength=len(self.values))
        return per_value.astype(np.int64)

    def choose(self, wanted: Filter) -> Mask:
        """Which values a filter names, V; the others, if it is negated."""
        terms = set(wanted.terms)
        named = np.array([term in terms for term in self.terms], dtype=bool)
        return ~named if wanted.negated else named

    def match(self, wanted: Filter) -> Mask:
        """Which entries pass a filter, N."""
        named = np.ones(len(self.values), dtype=bool)
        if wanted.known is None:
            terms = set(wanted.terms)
            named = np.array([term in terms for term in self.terms], dtype=bool)
        combinations = np.zeros(self.combinations, dtype=bool)
        combinations[self._owners[named[self._items]]] = True
        if wanted.negated or wanted.known is False:
            combinations = ~combinations
        if np.count_nonzero(combinations) == 1:
            return np.asarray(self.codes == np.flatnonzero(combinations)[0])
        return combinations.take(self.codes)


class Columns:
    """One state of the catalog: the N entries that searches show, in the order of their row numbers.

    Args:
        frame: From `securitynet.web.reading`.

    Attributes:
        numbers: N, row numbers in the database, ascending.
        numeric: Code or measured name -> N values, NaN where one is not known; names of which no entry has a value
            are left out.
        facets: Code -> its values.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self.numbers: Integers = frame["number"].to_numpy()
        self.numeric: dict[str, Floats] = {
            name: frame[name].to_numpy() for name, dtype in frame.schema.items() if dtype == pl.Float64
        }
        self.facets = {name: FacetColumn(name, frame[name]) for name in list_facet_codes()}
        groups: list[list[FacetColumn]] = []
        for facet in sorted(self.facets.values(), key=lambda facet: facet.combinations):
            if not groups or math.prod(one.combinations for one in [*groups[-1], facet]) > _MOST_TOGETHER:
                groups.append([])
            groups[-1].append(facet)
        self._together = [(facets, _join_codes(facets)) for facets in groups]
        self._ranks = {
            name.removeprefix("order:"): frame[name].to_numpy() for name in frame.columns if name.startswith("order:")
        }

    def __len__(self) -> int:
        return len(self.numbers)

    @functools.cached_property
    def axes(self) -> dict[str, list[str]]:
        """What can stand on a plot's axis, by kind: measured names, and codes that some entry has."""
        return {
            "measured": [name for name in self.numeric if name not in load_codebook()],
            "annotated": [name for name in self.numeric if name in load_codebook()],
        }

    def count_facets(self, rows: Integers) -> dict[str, Integers]:
        """How many of the entries in these rows have each value of each facet, V."""
        if len(rows) == len(self):
            return {name: facet.count_values(facet.totals) for name, facet in self.facets.items()}
        counts = {}
        for facets, codes in self._together:
            sizes = [facet.combinations for facet in facets]
            joint = np.bincount(codes.take(rows), minlength=math.prod(sizes)).reshape(sizes)
            for axis, facet in enumerate(facets):
                counts[facet.name] = facet.count_values(
                    np.moveaxis(joint, axis, 0).reshape(sizes[axis], -1).sum(axis=1)
                )
        return counts

    def filter(self, wanted: Filter) -> Mask | None:
        """Which entries pass a filter, N; None if its code is not among the columns."""
        name = wanted.info.name
        if name in self.facets:
            return self.facets[name].match(wanted)
        if not wanted.info.numeric:
            return None
        column = self.numeric.get(name, np.broadcast_to(np.nan, len(self)))
        if wanted.known is not None:
            return np.isfinite(column) if wanted.known else np.isnan(column)
        mask = np.zeros(len(self), dtype=bool)
        for part in wanted.ranges:
            inside = np.isfinite(column)
            if part.low is not None:
                inside &= column > part.low if part.above else column >= part.low
            if part.high is not None:
                inside &= column < part.high if part.below else column <= part.high
            mask |= inside
        return ~mask if wanted.negated else mask

    def sort(self, rows: Integers, order: str, start: int, count: int) -> Integers:
        """A stretch of ordered rows; entries without the code that is sorted by come last.

        Args:
            rows: Rows to order, ascending.
            order: Code, with ``-`` before it for descending; nothing for the order of row numbers.
            start: First place of the stretch, from 0.
            count: Most rows to give.
        """
        if not order:
            return rows[start : start + count]
        ranks = self._rank(find_code_or_measured(order.lstrip("-")).name).take(rows)
        if order.startswith("-"):
            # Ranks from N on belong to entries without a value.
            np.subtract(len(self) - 1, ranks, out=ranks, where=ranks < len(self))
        end = start + count
        nearest = np.argpartition(ranks, end)[:end] if end < len(rows) else np.arange(len(rows))
        return rows[nearest[np.argsort(ranks[nearest])][start:]]

    def _rank(self, name: str) -> Integers:
        """Places of the entries in the ascending order of a code or a measured name; from N on without a value."""
        if name not in self._ranks:
            values = self.numeric.get(name, np.broadcast_to(np.nan, len(self)))
            places = np.empty(len(self), dtype=np.int64)
            places[np.argsort(values, kind="stable")] = np.arange(len(self))  # those without a value come last
            self._ranks[name] = np.where(np.isfinite(values), places, places + len(self))
        return self._ranks[name]

    def find_rows(self, numbers: Integers) -> Integers:
        """Rows of the entries with these row numbers, -1 for those that searches do not show."""
        if not len(self):
            return np.full(len(numbers), -1)
        rows = np.minimum(np.searchsorted(self.numbers, numbers), len(self) - 1)
        return np.where(self.numbers[rows] == numbers, rows, -1)


def _join_codes(facets: list[FacetColumn]) -> NDArray[np.unsignedinteger]:
    """One code an entry for its codes of several facets."""
    sizes = [facet.combinations for facet in facets]
    joint = np.ravel_multi_index([facet.codes for facet in facets], sizes)
    return joint.astype(np.min_scalar_type(math.prod(sizes)))


def _categories(column: pl.Series) -> list[str]:
    dtype: Any = column.dtype
    return list(dtype.categories)
