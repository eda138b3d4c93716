"""Annotations by coders: CSV with a column ``entry`` and one per code; ``coder`` is a column, or the file's name."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

from securitynet.catalog.codebook import find_code
from securitynet.catalog.importers.base import TableError
from securitynet.untrusted import read_bytes


def read_annotations(path: Path) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Coder -> (identifier of an entry, code -> value as text). Empty cells are values not given.

    Raises:
        TableError: If it is no such table; the line is named.
        UnknownName: If a column is no code.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path.name} cannot be read: {error}.", hint="Give a CSV file in UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise TableError(f"{path.name}, line {reader.line_num}: no CSV ({error}).") from None
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if "entry" not in header:
        raise TableError(
            f"{path.name} has no column `entry`.", hint="Its first line names the columns: entry, and codes."
        )
    names = {column: find_code(column).name for column in header if column not in ("entry", "coder")}
    by_coder: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for line, cells in lines[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise TableError(f"{path.name}, line {line}: {len(cells)} cells where the heading has {len(header)}.")
        row = dict(zip(header, cells, strict=True))
        coder = row.get("coder", "").strip() or path.stem
        values = {name: row[column] for column, name in names.items() if row[column].strip()}
        by_coder[coder].append((row["entry"], values))
    return dict(by_coder)
