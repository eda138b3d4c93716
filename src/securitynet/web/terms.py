"""The search index in memory: for each term, which entries have it.

A database's own index hands over the row numbers of a frequent word one by one (270,000 of them take 0.14 s). Here the
terms stand in order and their entries one after the other, so that a word, and also a beginning of words, is one slice.
What is found is what the database would find (`securitynet.catalog.query`); a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Terms:
    """An inverted index of M entries.

    Attributes:
        size: M.
        text: The T terms in the order of their bytes (UTF-8), one after the other.
        ends: T + 1, where each term begins in ``text``; the last is its length.
        starts: T + 1, where each term's entries begin in ``places``.
        places: Positions of entries, ascending within a term.
    """

    size: int
    text: NDArray[np.uint8]
    ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    places: NDArray[np.int32]

    def having(self, words: Sequence[tuple[Sequence[str], bool]]) -> Mask:
        """Which entries have all words, M.

        Args:
            words: Each with its parts, and whether it is a beginning. If no entry has them all as they stand, and none
                was given as a beginning, all are taken as beginnings: `resn` for `resnet`.
        """
        exact = [part for parts, begins in words for part in (parts[:-1] if begins else parts)]
        begun = [part for parts, begins in words if begins for part in parts[-1:]]
        found = self._all([*map(self.of, exact), *map(self.begun, begun)])
        if not begun and exact and not found.any():
            found = self._all([self.begun(part) for part in exact])
        return found

    def any_of(self, terms: Iterable[str]) -> Mask:
        """Which entries have one of the terms, M."""
        mask = np.zeros(self.size, dtype=bool)
        for term in terms:
            mask[self.of(term)] = True
        return mask

    def of(self, term: str) -> NDArray[np.int32]:
        """Positions of the entries that have a term."""
        key = term.encode()
        place = self._before(key)
        if place == len(self.starts) - 1 or self._term(place) != key:
            return self.places[:0]
        return self.places[self.starts[place] : self.starts[place + 1]]

    def begun(self, beginning: str) -> NDArray[np.int32]:
        """Positions of the entries that have a term of this beginning; one may stand there several times."""
        key = beginning.encode()
        # No UTF-8 text holds the byte 0xFF: all that begins with the key is before it.
        first, last = self._before(key), self._before(key + b"\xff")
        return self.places[self.starts[first] : self.starts[last]]

    def _all(self, several: list[NDArray[np.int32]]) -> Mask:
        if not several:
            return np.ones(self.size, dtype=bool)
        several.sort(key=len)
        found = np.zeros(self.size, dtype=bool)
        found[several[0]] = True
        for places in several[1:]:
            also = np.zeros(self.size, dtype=bool)
            also[places] = True
            found &= also
        return found

    def _term(self, place: int) -> bytes:
        return self.text[self.ends[place] : self.ends[place + 1]].tobytes()

    def _before(self, key: bytes) -> int:
        """How many terms come before a key."""
        low, high = 0, len(self.ends) - 1
        while low < high:
            middle = (low + high) // 2
            if self._term(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low


class Builder:
    """Collects entries' terms part by part; all heavy work is done by numpy and Arrow, which let other threads run."""

    def __init__(self) -> None:
        self._size = 0
        self._terms: list[pa.Array] = []
        self._counts: list[NDArray[np.int32]] = []
        self._places: list[NDArray[np.int32]] = []

    def add(self, texts: pa.Array) -> None:
        """The next entries' search texts: terms with one space between."""
        lists = pc.split_pattern(texts, " ")
        terms = lists.flatten().dictionary_encode()
        codes = terms.indices.to_numpy(zero_copy_only=False)
        owners = np.repeat(
            np.arange(self._size, self._size + len(texts), dtype=np.int32),
            lists.value_lengths().to_numpy(zero_copy_only=False),
        )
        # Short numbers are sorted in linear time.
        order = np.argsort(codes.astype(np.uint16) if len(terms.dictionary) <= 1 << 16 else codes, kind="stable")
        self._terms.append(terms.dictionary)
        self._counts.append(np.bincount(codes, minlength=len(terms.dictionary)).astype(np.int32))
        self._places.append(owners[order])
        self._size += len(texts)

    def done(self) -> Terms:
        """The index of all that was added."""
        given = pa.chunked_array(self._terms, pa.string()).combine_chunks().dictionary_encode()
        order = pc.sort_indices(given.dictionary)
        ordered = given.dictionary.take(order)
        rank = np.empty(len(ordered), dtype=np.int64)
        rank[order.to_numpy(zero_copy_only=False)] = np.arange(len(ordered))
        ranks = rank[given.indices.to_numpy(zero_copy_only=False)]
        counts = np.concatenate([np.zeros(0, dtype=np.int32), *self._counts])
        starts = np.zeros(len(ordered) + 1, dtype=np.int64)
        starts[1:] = np.cumsum(np.bincount(ranks, weights=counts, minlength=len(ordered)).astype(np.int64))
        places = np.empty(int(starts[-1]), dtype=np.int32)
        following = starts[:-1].copy()
        first = 0
        for part_counts in self._counts:
            here = ranks[first : first + len(part_counts)]
            first += len(part_counts)
            part = self._places.pop(0)
            # Where each run goes, less where it stands in the part.
            shift = following[here] - (np.cumsum(part_counts) - part_counts)
            places[np.repeat(shift, part_counts) + np.arange(len(part))] = part
            following[here] += part_counts
        buffers = ordered.buffers()
        ends = np.frombuffer(buffers[1], dtype=np.int32, count=len(ordered) + 1 + ordered.offset)[ordered.offset :]
        text = np.frombuffer(buffers[2], dtype=np.uint8) if buffers[2] is not None else np.zeros(0, dtype=np.uint8)
        return Terms(self._size, text[: int(ends[-1])], ends.astype(np.int64), starts, places)
