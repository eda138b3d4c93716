"""Rows that come one by one, as a frame: a table takes far less memory than its rows."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

_MISSING = float("nan")
_CODES = {float: "d", int: "q"}


@dataclass(slots=True)
class _Column:
    """Values in runs: many rows share what is known about their target and their trial.

    Numbers are kept as such, not as objects, as long as there are only numbers of one kind, and missing ones among
    floats: a study has millions.
    """

    values: list[Any] | array[Any] = field(default_factory=list)
    counts: array[int] = field(default_factory=lambda: array("I"))
    length: int = 0

    def add(self, value: Any, count: int) -> None:
        """Add one value of several rows."""
        self._append([value])
        self.counts.append(count)
        self.length += count

    def extend(self, values: list[Any]) -> None:
        """Add a value of each of several rows."""
        self._append(values)
        self.counts.extend(repeat(1, len(values)))
        self.length += len(values)

    def _append(self, values: list[Any]) -> None:
        if not self.length:
            kind = _CODES.get(type(values[0]))
            self.values = array(kind) if kind else []
        if isinstance(self.values, array):
            if self.values.typecode == "d":
                values = [_MISSING if value is None else value for value in values]
            number = float if self.values.typecode == "d" else int
            try:
                if all(type(value) is number for value in values):
                    self.values.extend(values)
                    return
            except OverflowError:  # a whole number of more than 64 bits
                pass
            self.values = self.values.tolist()
        self.values += values

    def places(self, count: int | None = None) -> NDArray[np.intp]:
        """The place of each row's value among the values, of which there are so many."""
        import numpy as np

        return np.repeat(np.arange(len(self.values) if count is None else count), self.counts)

    def fill(self, length: int) -> None:
        """Add missing values up to a length."""
        if self.length < length:
            self.add(_MISSING, length - self.length)


class Rows:
    """Rows that came in blocks, in memory by columns.

    Args:
        blocks: (column -> value that some rows share, (column -> value) of each of these rows). The two have no column
            in common. Each block is dropped before the next is asked for.
        order: Columns of texts by which the rows are sorted, missing ones first; equal rows stay in their order.
    """

    def __init__(
        self, blocks: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]], order: Sequence[str] = ()
    ) -> None:
        import numpy as np
        import pandas

        columns: defaultdict[str, _Column] = defaultdict(_Column)
        texts: dict[str, str] = {}
        total = 0
        for shared, rows in blocks:
            if not rows:
                continue
            for name, value in shared.items():
                columns[name].fill(total)
                columns[name].add(texts.setdefault(value, value) if type(value) is str else value, len(rows))
            names = rows[0].keys()
            alike = all(row.keys() == names for row in rows)
            for part in (rows,) if alike else ((row,) for row in rows):
                for name in part[0]:
                    values = [row[name] for row in part]
                    column = columns[name]
                    column.fill(total)
                    column.extend([texts.setdefault(value, value) if type(value) is str else value for value in values])
                total += len(part)
        for name in {*columns, *order}:
            columns[name].fill(total)
        # Sorted before there is a frame, which would be in memory twice.
        ranks = [pandas.factorize(pandas.Series(column.values), sort=True)[0][column.places()]
                 for column in (columns[name] for name in reversed(order))]  # fmt: skip
        self._sorted: slice | NDArray[np.intp] = np.lexsort(ranks) if ranks else slice(None)
        self._columns = dict(columns)
        self._length = total

    def __len__(self) -> int:
        return self._length

    def make_frame(self) -> pandas.DataFrame:
        """All rows as a frame; they are not kept.

        Returns:
            The columns in the order in which they first occur. NaN stands for a value that a row does not have.
        """
        import pandas

        series = {}
        for name in list(self._columns):
            column = self._columns.pop(name)  # so that memory holds only one column twice
            rows = column.places()[self._sorted]
            series[name] = pandas.Series(column.values).take(rows).reset_index(drop=True)
        return pandas.DataFrame(series, copy=False)

    def find_values(self) -> dict[str, pandas.Series]:
        """Column -> its values, of which each stands for one row or several, with the type that a frame gives them."""
        import pandas

        found = {}
        for name, column in self._columns.items():
            found[name] = pandas.Series(column.values)
            column.values = []  # a list of texts takes more
        return found

    def make_frames(self, values: Mapping[str, pandas.Series], size: int) -> Iterator[pandas.DataFrame]:
        """The rows as frames of at most so many, in order.

        Args:
            values: The columns of the frames, as `find_values` returns them, changed or not.
            size: Rows of a frame.
        """
        import pandas

        for start in range(0, self._length, size):
            part = slice(start, start + size)
            rows = part if isinstance(self._sorted, slice) else self._sorted[part]
            yield pandas.DataFrame(
                {
                    name: given.take(self._columns[name].places(len(given))[rows]).reset_index(drop=True)
                    for name, given in values.items()
                },
                copy=False,
            )


def make_frame(
    blocks: Iterable[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]], order: Sequence[str] = ()
) -> pandas.DataFrame:
    """A frame of rows: `Rows.make_frame`."""
    return Rows(blocks, order).make_frame()
