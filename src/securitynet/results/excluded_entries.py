"""Entries of the catalog that a study asks for and cannot use, each with the reason; stored beside its results."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from securitynet.records import Record
from securitynet.results.root import Root
from securitynet.untrusted import parse_json

logger = logging.getLogger(__name__)

FILE = "excluded.json"
"""Name of the file below the root of a study's results."""

_SHOWN = 5


class ExcludedEntry(Record):
    """An entry that was left out of a study.

    Attributes:
        catalog: Id of the entry.
        label: Its key.
        reason: Why it cannot be a target, as a clause.
        remedy: What would change that; empty if nothing is known to.
    """

    catalog: str
    label: str
    reason: str
    remedy: str = ""


def write_excluded(root: Root, entries: Iterable[ExcludedEntry]) -> None:
    """Store the entries that a study left out; nothing is written if there are none and never were any.

    Args:
        root: Root of the study's results.
        entries: The entries.
    """
    rows = [entry.model_dump(mode="json") for entry in entries]
    if rows or root.exists(FILE):
        root.write(FILE, json.dumps(rows, indent=1, ensure_ascii=False).encode("utf-8") + b"\n")


def read_excluded(root: Root) -> list[ExcludedEntry]:
    """The entries that a study left out; empty if the file is missing, or cannot be read (which is logged).

    Args:
        root: Root of the study's results.
    """
    try:
        return [ExcludedEntry.model_validate(row) for row in parse_json(root.read(FILE))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        logger.warning("The list of the entries that the study left out can't be read: %s (%s)", FILE, error)
        return []


def group_by_reason(entries: Iterable[ExcludedEntry]) -> list[tuple[str, str, list[str]]]:
    """(reason, remedy, labels) of the entries, the most frequent reason first.

    Args:
        entries: The entries.
    """
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in entries:
        groups[entry.reason, entry.remedy].append(entry.label)
    return [(reason, remedy, labels) for (reason, remedy), labels in sorted(groups.items(), key=lambda g: -len(g[1]))]


def describe_excluded(entries: Sequence[ExcludedEntry]) -> Iterator[str]:
    """Lines of text for people; none if no entry was left out.

    Args:
        entries: The entries.
    """
    if not entries:
        return
    yield f"Entries of the catalog left out: {len(entries):,}"
    for reason, remedy, labels in group_by_reason(entries):
        more = f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else ""
        yield f"  {len(labels):>6,} × {reason} ({', '.join(labels[:_SHOWN])}{more})"
        if remedy:
            yield f"           {remedy}"
