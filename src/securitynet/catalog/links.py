"""Entries that are the same weights under two names: recognised by rules, linked, and counted once.

Entries whose digests differ are never the same, whatever else they share. Of the others, rules decide in this order;
each needs evidence that the weights are the same:

1. *checksum*: the same digest of the weights, as far as both are known, the same number of classes;
2. *weights file*: the same address of one file (a page of many files does not count), the same number of classes;
3. *reference*: the same reference, if it names weights; ``arch:`` and ``python:`` name a network only;
4. *name*: timm says by its tag ``tv`` that the weights are torchvision's, and no digest says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.store import read_entry, read_rows_with_sources, replace
from securitynet.catalog.tables import entries
from securitynet.catalog.weights import SHORTEST, compare_checksums, is_file_address, names_weights, split_digest

BY_HAND = "by hand"
_EVIDENCE = ("checksum", "weights_link", "weights_file", "reference")
# A library from which SecurityNet loads weights goes before a table that only names them.
_PREFERENCE = ("torchvision", "pytorchcv", "timm", "robustbench", "huggingface")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt)$")


def find_checksum_in_name(address: str) -> str | None:
    """The digest that PyTorch's hub convention puts into a file's name: ``resnet50-11ad3fa6.pth``."""
    match = _HASH_IN_NAME.search(address)
    return f"sha256:{match[1]}" if match else None


def link_duplicates(connection: Connection, change: int, ids: Iterable[str]) -> int:
    """Find the duplicates of some entries and link them to one that stands for all; how many links are new.

    Links that a person made or unmade (rule ``by hand``) are left as they are.

    Args:
        connection: From `Database.write`.
        change: From `begin_change`.
        ids: The entries that were added or changed.
    """
    rows = _related(connection, list(ids))
    wanted = _wanted_links(rows)
    changed = 0
    for row in rows:
        target = wanted.get(row["id"], (None, None))
        if row["duplicate_rule"] == BY_HAND or (row["duplicate_of"], row["duplicate_rule"]) == target:
            continue
        set_link(connection, change, row["number"], target[0], target[1])
        changed += 1
    return changed


def set_link(connection: Connection, change: int, number: int, stands: str | None, rule: str | None) -> None:
    """Store which entry stands for this one.

    Args:
        connection: In a transaction.
        change: Number of the change that this belongs to.
        number: Row number of the duplicate.
        stands: Id of the entry that stands for it; None if none does.
        rule: Rule by which the two are linked; None if they are not.
    """
    row = next(read_rows_with_sources(connection, entries.c.number == number))
    replace(connection, change, row, read_entry(row), row["sources"], duplicate_of=stands, duplicate_rule=rule)


def move_duplicates(connection: Connection, change: int, chief: str, stands: str | None) -> list[str]:
    """Let another entry stand for all duplicates of one.

    Args:
        connection: In a transaction.
        change: Number of the change that this belongs to.
        chief: Id of the entry that stands for them now.
        stands: Id of the one that shall; None if none does.

    Returns:
        Ids of the duplicates.
    """
    rows = connection.execute(
        sa.select(entries.c.id, entries.c.number, entries.c.duplicate_rule).where(entries.c.duplicate_of == chief)
    ).all()
    for row in rows:
        set_link(connection, change, row.number, stands, row.duplicate_rule if stands else None)
    return [row.id for row in rows]


def _related(connection: Connection, ids: list[str]) -> list[dict[str, Any]]:
    """The given entries, and all that share evidence with them, directly or through others."""
    related: dict[str, dict[str, Any]] = {}
    searched: set[tuple[str, str]] = set()
    fresh = _select(connection, entries.c.id, ids)
    while fresh:
        related.update((row["id"], row) for row in fresh)
        evidence = [pair for row in fresh for pair in _searchable(row) if pair not in searched]
        searched.update(evidence)
        rows = _select(connection, entries.c.key, [key for row in fresh for key in _namesakes(row["key"])])
        for column in _EVIDENCE:
            values = sorted({value for name, value in evidence if name == column})
            rows += _select(connection, entries.c[column], values, beginnings=column == "checksum")
        fresh = list({row["id"]: row for row in rows if row["id"] not in related}.values())
    return [row for row in related.values() if not row["withdrawn"]]


def _searchable(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Columns and values by which to look for entries with the same weights; of a digest, its first digits."""
    if row["checksum"]:
        parts = split_digest(row["checksum"])
        yield "checksum", f"{parts[0]}:{parts[1][:SHORTEST]}" if parts else row["checksum"]
    for column in ("weights_link", "weights_file"):
        if row[column] and _is_one_file(column, row[column]):
            yield column, row[column]
    if names_weights(row["reference"]):
        yield "reference", row["reference"]


def _is_one_file(column: str, value: str) -> bool:
    """Whether a value means the same file wherever it stands: a path in a repository does not."""
    return is_file_address(value) if column == "weights_link" else value.startswith(("https://", "http://", "/"))


def _select(
    connection: Connection, column: sa.ColumnElement[Any], values: list[str], *, beginnings: bool = False
) -> list[dict[str, Any]]:
    names = ("number", "id", "key", "source", *_EVIDENCE, "classes", "duplicate_of", "duplicate_rule", "withdrawn")
    rows: list[dict[str, Any]] = []
    size = 100 if beginnings else 500
    for start in range(0, len(values), size):
        part = values[start : start + size]
        # Written as ranges, which an index answers; `g` is past every hexadecimal digit.
        where = sa.or_(*((column >= text) & (column < text + "g") for text in part)) if beginnings else column.in_(part)
        statement = sa.select(*(entries.c[name] for name in names)).where(where)
        rows += [dict(row) for row in connection.execute(statement).mappings()]
    return rows


def _wanted_links(rows: list[dict[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    """Id of a duplicate -> (id that stands for it, rule)."""
    wanted: dict[str, tuple[str | None, str | None]] = {}
    groups: dict[str, list[dict[str, Any]]] = {}
    holders: dict[tuple[Any, ...], list[str]] = {}
    for row in sorted(rows, key=_rank):
        if row["duplicate_rule"] == BY_HAND:
            continue
        pieces = list(_evidence(row))
        chief = row["id"]
        for piece in pieces:
            fitting = (held for held in holders.get(piece, ()) if _may_join(row, groups[held], piece))
            chief = next(fitting, row["id"])
            if chief != row["id"]:
                wanted[row["id"]] = (chief, str(piece[0]))
                break
        groups.setdefault(chief, []).append(row)
        for piece in pieces:
            held = holders.setdefault(piece, [])
            if chief not in held:
                held.append(chief)
    return wanted


def _may_join(row: Mapping[str, Any], group: list[dict[str, Any]], piece: tuple[Any, ...]) -> bool:
    """Whether no digest of a group differs from the row's; for evidence by digest, one must be equal to it."""
    verdicts = [compare_checksums(row["checksum"], other["checksum"]) for other in group]
    return False not in verdicts and (piece[0] != "checksum" or True in verdicts)


def _rank(row: Mapping[str, Any]) -> tuple[int, int, str]:
    preference = _PREFERENCE.index(row["source"]) if row["source"] in _PREFERENCE else len(_PREFERENCE)
    return (preference, row["reference"] is None, row["key"])


def _evidence(row: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    rules = {"checksum": "checksum", "weights_link": "weights file", "weights_file": "weights file"}
    for column, value in _searchable(row):
        if column in rules:
            yield rules[column], value, row["classes"]
        else:
            yield column, value
    if row["source"] == "torchvision" or not row["checksum"]:
        # Only where no digest speaks for or against it.
        yield from (("name", tuple(sorted((row["key"], other)))) for other in _namesakes(row["key"]))


def _namesakes(key: str) -> list[str]:
    """Keys under which another library tells that it has these weights: timm marks torchvision's with ``tv``."""
    timm = re.fullmatch(r"timm:(\w+)\.tv(2?)_in1k", key)
    if timm:
        return [f"torchvision:{timm[1]}@IMAGENET1K_V{timm[2] or 1}"]
    torchvision = re.fullmatch(r"torchvision:(\w+)@IMAGENET1K_V([12])", key)
    return [f"timm:{torchvision[1]}.tv{torchvision[2].replace('1', '')}_in1k"] if torchvision else []
