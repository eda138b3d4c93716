"""Entries that are the same weights under two names: recognised by rules, linked, and counted once.

Rules, in this order; each needs evidence that the files are one:

1. *checksum*: the same digest of the weights, the same number of classes;
2. *weights file*: the same address of one file (a page of many files does not count), the same number of classes;
3. *reference*: an entry of a published table that names a model of a library is that model;
4. *name*: timm says by its tag ``tv`` that the weights are torchvision's, and no digest says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.store import entry_of, replace, rows_with_sources
from securitynet.catalog.tables import entries

BY_HAND = "by hand"
_EVIDENCE = ("checksum", "weights_link", "reference")
# A library from which SecurityNet loads weights goes before a table that only names them.
_PREFERENCE = ("torchvision", "pytorchcv", "timm", "robustbench", "huggingface")
_FILE = re.compile(
    r"drive\.google\.com/uc\?id=|\.(pth|pt|bin|npz|safetensors|tar|th|ckpt|onnx|zip)(\.tar|\.gz)?$", re.IGNORECASE
)
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt)$")


def checksum_in_name(address: str) -> str | None:
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
    row = next(rows_with_sources(connection, entries.c.number == number))
    replace(connection, change, row, entry_of(row), row["sources"], duplicate_of=stands, duplicate_rule=rule)


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
        evidence: dict[str, set[str]] = {column: set() for column in _EVIDENCE}
        for row in fresh:
            for column in _EVIDENCE:
                value = row[column]
                if value and (column, value) not in searched and (column != "weights_link" or _FILE.search(value)):
                    searched.add((column, value))
                    evidence[column].add(value)
        rows = [row for column in _EVIDENCE for row in _select(connection, entries.c[column], sorted(evidence[column]))]
        rows += _select(connection, entries.c.key, [key for row in fresh for key in _namesakes(row["key"])])
        fresh = list({row["id"]: row for row in rows if row["id"] not in related}.values())
    return [row for row in related.values() if not row["withdrawn"]]


def _select(connection: Connection, column: sa.ColumnElement[Any], values: list[str]) -> list[dict[str, Any]]:
    names = ("number", "id", "key", "source", *_EVIDENCE, "classes", "duplicate_of", "duplicate_rule", "withdrawn")
    rows: list[dict[str, Any]] = []
    for start in range(0, len(values), 500):
        statement = sa.select(*(entries.c[name] for name in names)).where(column.in_(values[start : start + 500]))
        rows += [dict(row) for row in connection.execute(statement).mappings()]
    return rows


def _wanted_links(rows: list[dict[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    """Id of a duplicate -> (id that stands for it, rule)."""
    standing: dict[str, tuple[str, str]] = {}
    first: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in sorted(rows, key=_rank):
        if row["duplicate_rule"] == BY_HAND:
            continue
        for evidence in _evidence(row):
            holder = first.setdefault(evidence, row)
            if holder["id"] != row["id"] and row["id"] not in standing:
                chief = standing.get(holder["id"], (holder["id"], ""))[0]
                standing[row["id"]] = (chief, str(evidence[0]))
    return {key: (chief, rule) for key, (chief, rule) in standing.items()}


def _rank(row: Mapping[str, Any]) -> tuple[int, int, str]:
    preference = _PREFERENCE.index(row["source"]) if row["source"] in _PREFERENCE else len(_PREFERENCE)
    return (preference, row["reference"] is None, row["key"])


def _evidence(row: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    if row["checksum"]:
        yield ("checksum", row["checksum"], row["classes"])
    if row["weights_link"] and _FILE.search(row["weights_link"]):
        yield ("weights file", row["weights_link"], row["classes"])
    if row["reference"]:
        yield ("reference", row["reference"])
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
