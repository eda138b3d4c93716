"""Names for people: entries of equal names are told apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

DISTINGUISHING = ("dataset", "threat", "architecture", "source", "image_height", "year", "reference")
"""Codes that tell entries of one name apart, in the order in which they are tried."""


def tell_apart(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A name for each entry that no other of them has: its own, with what distinguishes it where others have it, too.

    Args:
        entries: Codes of each, with ``id``, ``key`` and ``name``.

    Returns:
        Id -> name.
    """
    groups: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        groups[str(entry["name"])].append(entry)
    names: dict[str, str] = {}
    for name, alike in groups.items():
        if len(alike) == 1:
            names[str(alike[0]["id"])] = name
            continue
        chosen = next((code for code in DISTINGUISHING if _distinguishes(code, alike)), "key")
        names |= {str(entry["id"]): f"{name} ({entry[chosen]})" for entry in alike}
    return names


def _distinguishes(code: str, entries: list[Mapping[str, Any]]) -> bool:
    values = [str(entry.get(code)) for entry in entries]
    return len(set(values)) == len(values) and not {"None", "nan", ""}.intersection(values)
