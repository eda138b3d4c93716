"""`TermIndex`: which entries have a search term, held in memory as a Polars frame.

The database's own index answers whole words as quickly, but beginnings of words too slowly for a page: SQLite's FTS5
needs 140 ms of processor time for three letters that 270,000 of a million entries have, and this index 6 ms. It must
match what the database would (`securitynet.catalog.query`); a test compares them.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from securitynet.catalog.text import parse_words

Mask = NDArray[np.bool_]

_LAST = "\U0010ffff"
"""Comes after every character that a term may hold."""


def build_terms(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Turn entries' terms around.

    Args:
        parts: Entries, part by part: ``number``, and ``search_text``, its terms with a space between.

    Returns:
        Each ``term`` once, in order, with ``number``, the list of the row numbers of all entries that have it.
    """
    # Part by part: all pairs of a term and an entry at once would take a gigabyte for a million entries.
    grouped = [
        part.select(pl.col("number").cast(pl.UInt32), term=pl.col("search_text").str.split(" "))
        .explode("term")
        .group_by("term")
        .agg("number")
        for part in parts
    ]
    empty = pl.DataFrame(schema={"term": pl.String, "number": pl.List(pl.UInt32)})
    terms = pl.concat([empty, *grouped]).group_by("term").agg(pl.col("number").explode())
    return terms.drop_nulls("term").sort("term").rechunk()


class TermIndex:
    """Search terms of all entries, those that searches do not show included: their words are known, and match nothing.

    Args:
        frame: From `build_terms`.
        shown: N, row numbers of the entries that searches show, ascending.
    """

    def __init__(self, frame: pl.DataFrame, shown: NDArray[np.int64]) -> None:
        self._terms = frame["term"]
        self._ends = np.append(0, frame["number"].list.len().cum_sum().to_numpy())
        numbers = frame["number"].explode().drop_nulls().to_numpy()
        # Places in a mask: first the entries that are shown, in their order, and then the others.
        places = np.full(1 + max(int(some.max(initial=0)) for some in (numbers, shown)), -1, dtype=np.int32)
        places[shown] = np.arange(len(shown))
        places[places < 0] = np.arange(len(shown), len(places))
        self._places = places[numbers]
        self._size, self._shown = len(places), len(shown)

    def match(self, text: str) -> Mask:
        """Which of the shown entries have all words of a text, N.

        If no entry has all words as they stand, and none was given as a beginning, all are taken as beginnings: `resn`
        for `resnet`.
        """
        words = parse_words(text)
        whole = [part for parts, begins in words for part in (parts[:-1] if begins else parts)]
        begun = [part for parts, begins in words if begins for part in parts[-1:]]
        mask = self._match_all(whole, begun)
        if whole and not begun and not mask.any():
            mask = self._match_all([], whole)
        return mask[: self._shown]

    def _match_all(self, whole: list[str], begun: list[str]) -> Mask:
        mask = np.ones(self._size, dtype=bool)
        for term, end in [(term, f"{term}\0") for term in whole] + [(term, term + _LAST) for term in begun]:
            one = np.zeros(self._size, dtype=bool)
            first, after = (bisect.bisect_left(self._terms, key) for key in (term, end))
            one[self._places[self._ends[first] : self._ends[after]]] = True
            mask &= one
        return mask
