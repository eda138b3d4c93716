"""Attributes from columns: of Parquet files beside image and label, and of ``attributes.csv`` in a folder of images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from securitynet.datasets.base import Attribute
from securitynet.datasets.text import read_text_table
from securitynet.errors import DatasetError
from securitynet.files import make_printable
from securitynet.untrusted import read_bytes

TABLE = "attributes.csv"
"""In the folder of a ``folder:`` dataset: a column ``file``, and one for each attribute."""

MOST_VALUES = 256
"""A column with more different values than this, or than half the records, says who a record is, not of what kind."""

Cell: TypeAlias = "str | int | bool | None"

logger = logging.getLogger(__name__)
_LAYOUT = f"{TABLE} holds a column `file` with paths such as train/CLASS/image.png, and one column for each attribute."


def make_attribute(name: str, cells: Sequence[Cell], names: Sequence[str] | None = None) -> Attribute | None:
    """Make the attribute of a column, its values in order; None if it identifies records rather than groups.

    Args:
        name: Name of the column, for the log.
        cells: One per record; None if it is not annotated.
        names: Names of the integers from 0, if known; an integer outside is then not annotated.
    """
    if names is not None:
        values = np.array([-1 if cell is None else int(cell) for cell in cells], dtype=np.int64)
        values[(values < 0) | (values >= len(names))] = -1
        return Attribute(values, tuple(names))
    different = sorted({cell for cell in cells if cell is not None})
    if not different:
        return None
    if len(different) > min(MOST_VALUES, max(2, len(cells) // 2)):
        logger.info("The column %s has %d different values and is taken for no attribute.", name, len(different))
        return None
    number = {value: position for position, value in enumerate(different)}
    codes = np.array([-1 if cell is None else number[cell] for cell in cells], dtype=np.int64)
    return Attribute(codes, tuple(str(value) for value in different))


def read_attributes_of_folder(root: Path, paths: Sequence[Path]) -> dict[str, Attribute]:
    """Read the attributes of the images of a folder from ``attributes.csv``; empty if there is no such file.

    An image is not annotated if its cell is empty or it has no row.

    Args:
        root: The folder; paths in the file are relative to it.
        paths: The images.

    Raises:
        DatasetError: If the file is invalid, names an image twice, or names one that does not exist.
    """
    table = root / TABLE
    if not table.is_file():
        return {}
    try:
        rows = read_text_table(read_bytes(table), errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{table} cannot be read: {error}.", hint=_LAYOUT) from error
    header = [make_printable(name) for name in rows.header]
    if "file" not in header or len(header) < 2 or len(set(header)) < len(header) or "" in header:
        raise DatasetError(f"{table} has the columns {', '.join(map(repr, header)) or 'none'}.", hint=_LAYOUT)
    position = {make_printable(path.relative_to(root).as_posix()): number for number, path in enumerate(paths)}
    columns: dict[str, list[Cell]] = {name: [None] * len(paths) for name in header if name != "file"}
    seen: set[str] = set()
    for number, cells in rows.rows[1:]:
        if len(cells) != len(header):
            raise DatasetError(f"{table}, line {number}: {len(cells)} cells, and {len(header)} columns.", hint=_LAYOUT)
        row = dict(zip(header, map(make_printable, cells), strict=True))
        file = row.pop("file").removeprefix("./")
        file = file if file in position else file.replace("\\", "/")
        if file not in position:
            raise DatasetError(f"{table}, line {number}: there is no image {file!r}.", hint=_LAYOUT)
        if file in seen:
            raise DatasetError(f"{table}, line {number}: {file!r} occurs twice.")
        seen.add(file)
        for name, cell in row.items():
            columns[name][position[file]] = cell or None
    attributes = {name: make_attribute(name, _as_numbers(cells)) for name, cells in columns.items()}
    return {name: made for name, made in attributes.items() if made is not None}


def _as_numbers(cells: list[Cell]) -> list[Cell]:
    """Integers if all annotated cells are integers, so that 2 comes before 10."""
    try:
        return [None if cell is None else int(cell) for cell in cells]
    except ValueError:
        return cells
