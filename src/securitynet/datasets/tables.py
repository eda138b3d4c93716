"""Small text files with two columns, in which several datasets store their lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from securitynet.errors import DatasetError
from securitynet.untrusted import read_bytes


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file.

    Raises:
        DatasetError: If it cannot be read.
    """
    try:
        return read_bytes(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def read_pairs(path: Path, what: str) -> Iterator[tuple[str, str]]:
    """First and second field of each non-empty line; the second is everything after the first blank.

    Args:
        path: The file.
        what: What a line should contain, for the message.

    Raises:
        DatasetError: If it cannot be read, or a line has only one field.
    """
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.strip().split(maxsplit=1)
        if len(fields) == 2:
            yield fields[0], fields[1].strip()
        elif fields:
            raise DatasetError(f"{path}, line {number}: expected {what}.", hint="Get the file again.")
