"""`Code`: all that is declared of a code beside its type; everything else derives from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Code:
    """What a code means; pinned to a field of `CatalogEntry`.

    Attributes:
        group: Under which heading it is shown.
        meaning: One sentence.
        paper: Where the SecurityNet paper defines it ("Table 2", "section 2.2"), or None if experiments need it.
        example: A value, as a user would write it.
        unit: Unit of a number.
        text: Whether full-text search covers it.
        ordered: Whether it is indexed for ranges and sorting.
        term: Whether whole values of a text are indexed as search terms, so that a filter on them needs no scan (those
            of choices, lists and booleans always are).
        label: Its name on pages; by default the field's name with spaces.
        facet: Place among the page's facets, the smallest first; None if it is no facet.
        range_filter: Whether the page has two boxes for its least and largest value.
        sort_labels: What the page calls its ascending and its descending order; an empty one is not offered.
        log_axis: Whether a plot may give it a logarithmic axis.
        number_format: How pages write its numbers: with separators (``grouped``), shortened (``short``: 11.7M), or as
            digits alone (``plain``).
        overview: Place among the columns that ``catalog search`` prints; None if it is not printed.
    """

    group: str
    meaning: str
    paper: str | None = None
    example: str = ""
    unit: str | None = None
    text: bool = False
    ordered: bool = False
    term: bool = False
    label: str = ""
    facet: int | None = None
    range_filter: bool = False
    sort_labels: tuple[str, str] = ("", "")
    log_axis: bool = False
    number_format: Literal["grouped", "short", "plain"] = "grouped"
    overview: int | None = None
