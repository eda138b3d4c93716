"""Rows that come one by one, as a frame: a table of a million rows takes a tenth of the memory of its rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

_MISSING = float("nan")


@dataclass(slots=True)
class _Column:
    """Values in runs: many rows share what is known about their target and their trial."""

    values: list[Any] = field(default_factory=list)
    counts: array[int] = field(default_factory=lambda: array("q"))
    length: int = 0

    def add(self, value: Any, count: int) -> None:
        self.values.append(value)
        self.counts.append(count)
        self.length += count


def make_frame(blocks: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> pandas.DataFrame:
    """A frame of rows.

    Args:
        blocks: (column -> value that some rows share, (column -> value) of each of these rows). The two have no column
            in common. Each block is dropped before the next is asked for.

    Returns:
        The columns in the order in which they first occur. NaN stands for a value that a row does not have.
    """
    import numpy as np
    import pandas

    columns: dict[str, _Column] = {}
    texts: dict[str, str] = {}
    total = 0
    for shared, rows in blocks:
        if not rows:
            continue
        for name, value in shared.items():
            text = texts.setdefault(value, value) if type(value) is str else value
            _extend(columns, name, total).add(text, len(rows))
        for row in rows:
            for name, value in row.items():
                text = texts.setdefault(value, value) if type(value) is str else value
                _extend(columns, name, total).add(text, 1)
            total += 1
    series = {}
    for name in list(columns):
        column = columns.pop(name)  # so that memory holds only one column twice
        if column.length < total:
            column.add(_MISSING, total - column.length)
        places = np.repeat(np.arange(len(column.values)), column.counts)
        series[name] = pandas.Series(column.values).take(places).reset_index(drop=True)
    return pandas.DataFrame(series, copy=False)


def _extend(columns: dict[str, _Column], name: str, length: int) -> _Column:
    """The column of a name, filled up to a length with missing values."""
    column = columns.get(name)
    if column is None:
        column = columns[name] = _Column()
    if column.length < length:
        column.add(_MISSING, length - column.length)
    return column
