"""The members as the user states them: a list of files or numbers of records, or a mask.

A list is a text file with one record per line, or a table with a column ``file`` (also ``path``, ``image``, ``id``) or
``record`` (also ``index``), and optionally a column ``member`` of 1 and 0, or ``split`` of ``train`` and ``test``.
Files are written as in results: relative to the folder of the dataset, or with that folder before them; a unique part
of the path is enough, and so is a name without its suffix. Numbers count the records from 0, in the dataset's order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.text import TextTable, decode
from securitynet.errors import DatasetError, SplitError
from securitynet.files import expand_home, make_printable
from securitynet.untrusted import read_bytes

Indices = NDArray[np.int64]
Stated: TypeAlias = "str | Path | Sequence[int | str | bool] | NDArray[Any] | Any"
"""A file, names or numbers of records, or a mask: lists, arrays and tensors."""

_FILES = ("file", "path", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "name", "id")
_NUMBERS = ("record", "index", "row", "number", "record_id")
_FLAGS = (
    "member", "members", "is_member", "membership", "train", "training", "is_train", "is_training", "in_train",
    "in_training", "in_train_set", "in_training_set", "split", "part", "subset", "set",
)  # fmt: skip
_YES = frozenset(("1", "1.0", "true", "yes", "member", "train", "training"))
_NO = frozenset(("0", "0.0", "false", "no", "non-member", "nonmember", "test", "testing"))
_LAYOUT = (
    "A list of members has one record a line, or a column `file` or `record` in a table with a header; a column "
    "`member` of 1 and 0, or `split` of train and test, may say who is one."
)


@dataclass(frozen=True)
class Membership:
    """The members of a dataset.

    Attributes:
        members: Sorted numbers of records.
        non_members: Likewise; disjoint.
        notes: Remarks for the reader of results.
    """

    members: Indices
    non_members: Indices
    notes: tuple[str, ...]


def resolve_members(
    members: Stated, non_members: Stated | None, names: Sequence[str], reference: str, folder: Path | None = None
) -> Membership:
    """Find the records that are stated to be members and non-members.

    Args:
        members: The members.
        non_members: The non-members; None: all others or, if a table marks some records as non-members, those.
        names: Names of the records, as in results.
        reference: Reference of the dataset, for messages.
        folder: Folder to which names of files are relative; None if there is none.

    Raises:
        DatasetError: If a list cannot be read, or an entry names no record or more than one.
        SplitError: If a record is listed as both, or there are no members, or no non-members.
    """
    lookup = _Lookup(names, reference, folder)
    chosen, stated_not = _resolve(members, "members", lookup)
    others = stated_not
    if non_members is not None:
        if stated_not is not None:
            raise DatasetError(
                "The list of members says itself who is none, in its column `member`.", hint="Leave --non-members out."
            )
        others = _resolve(non_members, "non-members", lookup)[0]
    if others is None:
        others = np.setdiff1d(np.arange(len(names), dtype=np.int64), chosen, assume_unique=True)
        rest = "; all others are non-members"
    else:
        neither = len(names) - len(chosen) - len(others)
        rest = f"; {neither:,} are neither and were left out" if neither else ""
    both = np.intersect1d(chosen, others)
    if len(both):
        raise SplitError(
            f"{len(both)} records are stated to be members and non-members, the first being {names[int(both[0])]}."
        )
    for what, indices in (("member", chosen), ("non-member", others)):
        if not len(indices):
            raise SplitError(f"No record of {reference} is a {what} by what is stated; there must be some of both.")
    note = f"Membership as stated: {len(chosen):,} members and {len(others):,} non-members of {len(names):,}{rest}."
    return Membership(chosen, others, (note,))


def with_members(dataset: ImageDataset, members: Stated, non_members: Stated | None = None) -> ImageDataset:
    """Copy a dataset with the stated members as its training part and the stated non-members as its test part.

    Args:
        dataset: The dataset.
        members: The members.
        non_members: The non-members; None for all others.

    Raises:
        DatasetError: If a list cannot be read, or an entry names no record or more than one.
        SplitError: If a record is listed as both, or there are no members, or no non-members.
    """
    names = dataset.record_names
    if names is None:
        names = [dataset.get_record_name(index) for index in range(len(dataset))]
    membership = resolve_members(members, non_members, names, dataset.reference)
    return replace(
        dataset,
        parts={"train": membership.members, "test": membership.non_members},
        notes=(*dataset.notes, *membership.notes),
        members_stated=True,
    )


def _resolve(stated: Stated, what: str, lookup: _Lookup) -> tuple[Indices, Indices | None]:
    """The stated records, and those that a column marks as the opposite."""
    if isinstance(stated, str | Path):
        return _from_file(expand_home(stated), lookup)
    values = stated.tolist() if hasattr(stated, "tolist") else list(stated)
    if any(isinstance(value, list) for value in values):
        raise DatasetError(f"The {what} must be one value a record, not {np.shape(values)}.")
    if values and all(isinstance(value, bool) for value in values):
        if len(values) != lookup.count:
            raise DatasetError(f"The mask of {what} has {len(values)} values for {lookup.count} records.")
        return np.flatnonzero(values).astype(np.int64), None
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        indices = lookup.check_numbers(values, f"The {what}")
        if len(np.unique(indices)) < len(indices):
            masked = "A mask must be boolean: mask.astype(bool)." if set(values) <= {0, 1} else None
            raise DatasetError(f"The {what} name a record twice.", hint=masked)
        return np.sort(indices), None
    if all(isinstance(value, str) for value in values):
        return lookup.find_all([(number, value) for number, value in enumerate(values)], f"The {what}", "entry"), None
    raise DatasetError(f"The {what} must be names of records, or their numbers, or a boolean mask, all of one kind.")


def _from_file(path: Path, lookup: _Lookup) -> tuple[Indices, Indices | None]:
    shown = make_printable(str(path))
    try:
        text = decode(read_bytes(path), errors="surrogateescape")
        table = TextTable(text)
    except FileNotFoundError as error:
        raise DatasetError(f"There is no list of members {shown}.") from error
    except OSError as error:
        raise DatasetError(f"{shown} cannot be read: {error.strerror}.", hint=_LAYOUT) from error
    except ValueError as error:
        raise DatasetError(f"{shown} is not a text file: {error}.", hint=_LAYOUT) from error
    header = [name.casefold() for name in table.header]
    column = next((header.index(name) for name in (*_FILES, *_NUMBERS) if name in header), None)
    if column is None:
        return _from_lines(text, table, shown, lookup), None
    flags = next((header.index(name) for name in _FLAGS if name in header), None)
    yes: list[tuple[int, str]] = []
    no: list[tuple[int, str]] = []
    for line, cells in table.rows[1:]:
        if len(cells) <= max(column, flags or 0):
            raise DatasetError(f"{shown}, line {line}: {len(cells)} cells, and {len(header)} columns.", hint=_LAYOUT)
        flag = "1" if flags is None else cells[flags].casefold()
        if flag not in _YES and flag not in _NO:
            raise DatasetError(f"{shown}, line {line}: {cells[flags or 0]!r} does not say who is a member (1 or 0).")
        (yes if flag in _YES else no).append((line, cells[column]))
    numbered = header[column] in _NUMBERS
    chosen = lookup.find_all(yes, shown, "line", numbered=numbered)
    return chosen, lookup.find_all(no, shown, "line", numbered=numbered) if no else None


def _from_lines(text: str, table: TextTable, shown: str, lookup: _Lookup) -> Indices:
    lines = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1)]
    entries = [(number, line.strip("\"'")) for number, line in lines if line]
    if not entries:
        raise DatasetError(f"{shown} is empty.", hint=_LAYOUT)
    if len(table.header) > 1 and not any(lookup.holds(line) for _, line in entries[:2]):
        raise DatasetError(
            f"{shown} has the columns {', '.join(map(repr, table.header[:6]))}: none says which record.", hint=_LAYOUT
        )
    return lookup.find_all(entries, shown, "line")


class _Lookup:
    """Finds the numbers of records for entries of the user."""

    def __init__(self, names: Sequence[str], reference: str, folder: Path | None) -> None:
        self.count = len(names)
        self._names = names
        self._reference = reference
        self._folder = None if folder is None else _normal(make_printable(folder.resolve().name))

    @cached_property
    def _exact(self) -> dict[str, int]:
        return {_normal(name): number for number, name in enumerate(self._names)}

    @cached_property
    def _ends(self) -> dict[str, int]:
        """End of a name, with and without the suffix of the file -> record; -1 if it is not unique."""
        records: dict[str, int] = {}
        for name, number in self._exact.items():
            start = 0
            while True:
                end = name[start:]
                stem = end.rpartition(".")[0] if "." in end.rpartition("/")[2][1:] else end
                for text in {end, stem}:
                    records[text] = number if records.get(text, number) == number else -1
                start = name.find("/", start) + 1
                if not start:
                    break
        return records

    def holds(self, text: str) -> bool:
        """Whether a record has this name."""
        return self._find(_normal(text)) is not None

    def check_numbers(self, values: Iterable[int], where: str) -> Indices:
        """Convert numbers of records to an array.

        Raises:
            DatasetError: If there is no such record.
        """
        indices = np.array(list(values), dtype=np.float64)
        wrong = np.flatnonzero((indices < 0) | (indices >= self.count))
        if len(wrong):
            raise DatasetError(
                f"{where}: there is no record {indices[wrong[0]]:.0f}; {self._reference} has the records 0 to "
                f"{self.count - 1}."
            )
        return indices.astype(np.int64)

    def find_all(self, entries: list[tuple[int, str]], where: str, unit: str, *, numbered: bool = False) -> Indices:
        """Sorted numbers of the records that entries name; naming one twice is harmless.

        Args:
            entries: Number of the line, and its text.
            where: Name of the list, for messages.
            unit: Name of an entry, for messages.
            numbered: Whether the entries are known to be numbers of records.

        Raises:
            DatasetError: If an entry names no record, or several.
        """
        if numbered:
            for line, text in entries:
                if not _is_number(text):
                    raise DatasetError(f"{where}, {unit} {line}: {text!r} is not the number of a record.", hint=_LAYOUT)
            return np.unique(self.check_numbers((int(float(text)) for _, text in entries), where))
        records = [self._find(_normal(text)) for _, text in entries]
        if entries and all(text.isdecimal() and len(text) < 19 for _, text in entries):
            return self._choose([int(text) for _, text in entries], records, where)
        for (line, text), record in zip(entries, records, strict=True):
            if record == -1:
                raise DatasetError(
                    f"{where}, {unit} {line}: {make_printable(text)!r} fits more than one record.",
                    hint=f"Write more of its path, as in {self._names[0]}.",
                )
        absent = [entry for entry, record in zip(entries, records, strict=True) if record is None]
        if absent:
            line, text = absent[0]
            raise DatasetError(
                f"{where}: {len(absent)} of {len(entries)} entries name no record of {self._reference}, the first "
                f"being {make_printable(text)!r} ({unit} {line}).",
                hint=f"Its records are called like {self._names[0]!r}; or give their numbers, from 0.",
            )
        return np.unique(np.array(records, dtype=np.int64))

    def _choose(self, numbers: list[int], records: list[int | None], where: str) -> Indices:
        """Interpret a list of whole numbers: names of files without their suffix, or numbers of records."""
        named = (
            None if any(record is None or record < 0 for record in records) else np.unique(np.array(records, np.int64))
        )
        if named is None:
            return np.unique(self.check_numbers(numbers, where))
        if max(numbers) < self.count and not np.array_equal(named, np.unique(numbers)):
            raise DatasetError(
                f"{where}: its numbers may be names of files or numbers of records of {self._reference}.",
                hint="Put a line `file` or `record` first; or write names with their ending.",
            )
        return named

    def _find(self, text: str) -> int | None:
        """The record with a name; None if there is none, -1 if there are several."""
        if text in self._exact:
            return self._exact[text]
        if self._folder is not None and f"/{self._folder}/" in f"/{text}":
            rest = f"/{text}".split(f"/{self._folder}/")
            for number in range(1, len(rest)):
                inner = f"/{self._folder}/".join(rest[number:])
                if inner in self._exact:
                    return self._exact[inner]
        record = self._ends.get(text)
        if (
            record is not None
            and text.isdecimal()
            and record >= 0
            and "." not in self._names[record].rpartition("/")[2]
        ):
            return None  # train/17 is not a file called 17
        return record


def _normal(name: str) -> str:
    """The form in which names are compared: normalised accents and slashes, without ``./``."""
    text = unicodedata.normalize("NFC", make_printable(name.strip())).replace("\\", "/")
    while text.startswith("./"):
        text = text[2:]
    return text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,300}(\.0{0,300})?", text) is not None
