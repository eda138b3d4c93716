"""Finding entries that cannot be right: values against each other, against the dataset, and links."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa

from securitynet.catalog.database import Database
from securitynet.catalog.known import find_dataset_facts
from securitynet.catalog.query import Query
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.tables import entries, measurements
from securitynet.exchange import Client, TooLarge, TooSlow

_LINKS = ("paper_link", "weights_link", "code_link")
_CHANCE_MARGIN = 0.5


@dataclass(frozen=True)
class Inconsistency:
    """Something that cannot be, or is odd.

    Attributes:
        severity: ``error`` (cannot be) or ``warning`` (worth a look).
        entry: Key of the entry.
        code: Code that it concerns.
        message: What is wrong.
    """

    severity: Literal["error", "warning"]
    entry: str
    code: str
    message: str


def validate_entries(
    database: Database, query: Query, *, online: bool = False, timeout: float = 10.0
) -> Iterator[Inconsistency]:
    """Check entries and their measured values.

    Args:
        database: Where.
        query: Which entries.
        online: Whether to ask every linked server if the page is still there.
        timeout: Seconds to wait for a server.
    """
    checked = []
    for entry in query:
        yield from check_entry(entry)
        checked.append(entry)
    yield from _check_measurements(database, {entry.id for entry in checked})
    if online:
        yield from check_links(checked, timeout=timeout)


def check_entry(entry: CatalogEntry) -> Iterator[Inconsistency]:
    """What one entry's codes say against each other and against its dataset."""

    def error(code: str, message: str) -> Inconsistency:
        return Inconsistency("error", entry.key, code, message)

    def warning(code: str, message: str) -> Inconsistency:
        return Inconsistency("warning", entry.key, code, message)

    facts = find_dataset_facts(entry.dataset) if entry.dataset else None
    classifier = entry.head in ("classifier", None)
    for code in ("classes", "training_size"):
        stated = getattr(entry, code)
        known = facts.codes.get(code) if facts else None
        if stated is not None and known is not None and stated != known and classifier:
            severity = error if code == "classes" else warning
            yield severity(code, f"{stated}, where {entry.dataset} has {known}")
    if entry.claimed_accuracy is not None:
        if entry.claimed_top5 is not None and entry.claimed_top5 < entry.claimed_accuracy:
            yield error("claimed_top5", f"{entry.claimed_top5} is below the top-1 accuracy {entry.claimed_accuracy}")
        if entry.classes and entry.claimed_accuracy < _CHANCE_MARGIN / entry.classes:
            yield error("claimed_accuracy", f"{entry.claimed_accuracy} is far below chance, 1/{entry.classes}")
    if entry.head == "classifier" and entry.task_type == "feature extraction":
        yield error("head", "a classifier, where the task is feature extraction")
    if classifier and entry.task_type == "classification" and entry.classes is None:
        yield warning("classes", "a classifier without a number of classes")
    if entry.extra_data is False and entry.pretraining:
        yield error("extra_data", f"no extra data, yet pretrained on {', '.join(entry.pretraining)}")
    for code in _LINKS:
        address = getattr(entry, code)
        if address is not None and not _well_formed(address):
            yield error(code, f"{address} is malformed")


def check_links(checked: Iterable[CatalogEntry], *, timeout: float = 10.0, workers: int = 8) -> Iterator[Inconsistency]:
    """Request every linked page, each address once, and report those that are not there.

    Args:
        checked: Entries whose links are followed.
        timeout: Seconds to wait for a server.
        workers: Requests at a time.
    """
    wanted: dict[str, tuple[str, str]] = {}
    for entry in checked:
        for code in _LINKS:
            address = getattr(entry, code)
            if address is not None and _well_formed(address):
                wanted.setdefault(address, (entry.key, code))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for address, trouble in zip(wanted, pool.map(lambda item: _trouble(item, timeout), wanted), strict=True):
            if trouble:
                key, code = wanted[address]
                yield Inconsistency(
                    "warning" if trouble.startswith("cannot") else "error", key, code, f"{address} {trouble}"
                )


def _trouble(address: str, timeout: float) -> str | None:
    try:
        with contextlib.closing(Client(timeout=timeout, follow_redirects=True)) as client:
            status = _request(client, "HEAD", address)
            if status in (403, 405, 501):  # servers that refuse HEAD, not the page
                status = _request(client, "GET", address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"cannot be reached: {type(error).__name__}"
    return f"is dead: {status}" if status in (404, 410) else None


def _request(client: Client, method: str, address: str) -> int:
    """The status of a page, whose content is not read."""
    try:
        return client.exchange(method, address, None, 0).status
    except (TooLarge, TooSlow):  # it is there
        return 200


def _check_measurements(database: Database, ids: set[str]) -> Iterator[Inconsistency]:
    statement = (
        sa.select(entries.c.id, entries.c.key, measurements)
        .join(entries, entries.c.number == measurements.c.entry)
        .where(measurements.c.ended.is_(None))
    )
    with database.read() as connection:
        for row in connection.execute(statement).mappings():
            if row["id"] not in ids:
                continue
            low = -1.0 if row["name"].endswith(".gap") else 0.0
            if row["name"].startswith(("accuracy.", "stealing.", "membership.")) and not low <= row["value"] <= 1:
                yield Inconsistency("error", row["key"], row["name"], f"{row['value']} is outside [{low:g}, 1]")


def _well_formed(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme in ("http", "https") and "." in host and not any(c in address for c in ' <>"{}|\\^`')
