"""Names for people: what distinguishes entries of equal names is added."""

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
        code = next((code for code in DISTINGUISHING if _distinguishes(code, alike)), None)
        marks = [str(entry[code]) for entry in alike] if code else _shorten([str(entry["key"]) for entry in alike])
        names |= {str(entry["id"]): f"{name} ({mark})" for entry, mark in zip(alike, marks, strict=True)}
    return names


def _shorten(keys: list[str]) -> list[str]:
    """Keys without the parts between colons that all of them have."""
    parts = [key.split(":") for key in keys]
    if len({len(own) for own in parts}) > 1:
        return keys
    differ = [place for place, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    return [":".join(own[place] for place in differ) for own in parts]


def _distinguishes(code: str, entries: list[Mapping[str, Any]]) -> bool:
    values = [str(entry.get(code)) for entry in entries]
    return len(set(values)) == len(values) and not {"None", "nan", ""}.intersection(values)
