"""What all importers give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from securitynet.catalog.store import Item, Tally
from securitynet.errors import SecurityNetError


class TableError(SecurityNetError):
    """A file that is no table, or whose columns are not those of a catalog's table."""


@dataclass(frozen=True)
class ImportProblem:
    """A row that could not be imported.

    Attributes:
        line: Line in the file, from 1 (row number for Parquet).
        reason: What is wrong with it.
    """

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass
class Table:
    """What was read from a file, before anything is written.

    Attributes:
        source: Where values come from that name no other source.
        items: Entries with their measured values.
        papers: Papers with weights: title, venue, venue_type, year, paper_link, weights_link, note.
        problems: Rows that were left out.
        warnings: Rows that were taken without a cell that makes no sense (a link that is none).
        lines: Line of each key, to report repeats.
    """

    source: str
    items: list[Item] = field(default_factory=list)
    papers: list[dict[str, Any]] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)
    warnings: list[ImportProblem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, item: Item) -> None:
        """Take an entry, unless an earlier row has its key."""
        first = self.lines.setdefault(item.entry.key, line)
        if first == line:
            self.items.append(item)
        else:
            self.problems.append(ImportProblem(line, f"same key as line {first}: {item.entry.key}"))


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        entries: How many entries were added, changed, as before.
        papers: Likewise for papers.
        problems: Rows that were left out.
        warnings: Rows that were taken without a cell that makes no sense.
        linked: Entries newly recognised as another's duplicate.
        by_purpose: Entries in the file by purpose.
    """

    entries: Tally
    papers: Tally
    problems: list[ImportProblem]
    warnings: list[ImportProblem]
    linked: int = 0
    by_purpose: dict[str, int] = field(default_factory=dict)


def describe_reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'row'}: {item['msg']}" for item in error.errors()[:3]
        )
    if isinstance(error, SecurityNetError):
        return str(error)
    return f"{type(error).__name__}: {error}"
