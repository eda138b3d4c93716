"""Writing: every change is one transaction with a source, an actor and a time; the state it replaces is kept."""

from __future__ import annotations

import datetime
import getpass
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.codebook import load_codebook
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.tables import changes, entries, measurements, papers, provenance, revisions
from securitynet.catalog.text import list_index_terms, make_code_term
from securitynet.files import hash_stably

ChangeKind = Literal["import", "collect", "add", "edit", "withdraw", "link", "annotate", "resolve", "measure"]
PERSON = "person:"
_BATCH = 400
_T = TypeVar("_T")
Row = Mapping[Any, Any]
"""A row of `entries`, by column."""


@dataclass(frozen=True)
class Measured:
    """A measured value of an entry, and who measured it.

    Attributes:
        name: Dotted name, such as ``stealing.accuracy``.
        measured_by: ``published``, or ``trial`` (one of ours).
        source: The publication's link, or the trial's id.
    """

    name: str
    value: float
    measured_by: Literal["published", "trial"]
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Item:
    """An entry as a collector or an importer gives it.

    Attributes:
        entry: The codes it knows.
        sources: Code -> where the value comes from; codes that are not named come from the change's source.
        measured: Measured values.
    """

    entry: CatalogEntry
    sources: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()


@dataclass
class Tally:
    """What a change did.

    Attributes:
        added: Entries that are new.
        changed: Entries that differ from before.
        unchanged: Entries that were given as they were.
        measurements: Measured values that are new or different.
        kept: Values that a machine gave and that a person had corrected.
        touched: Ids of the entries that were added or changed.
        new: Ids of those that were added.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    measurements: int = 0
    kept: int = 0
    touched: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Entries that were given."""
        return self.added + self.changed + self.unchanged


def begin_change(connection: Connection, kind: ChangeKind, source: str, note: str | None = None) -> int:
    """Record that a change begins; the record is gone if the transaction fails.

    Args:
        connection: In a transaction.
        kind: Kind of the change.
        source: Where its values come from.
        note: Reason, for the history.

    Returns:
        Number of the change.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    values = {
        "time": now,
        "kind": kind,
        "source": source,
        "actor": find_actor(),
        "note": note,
        "added": 0,
        "changed": 0,
    }
    return int(connection.execute(sa.insert(changes).values(values).returning(changes.c.number)).scalar_one())


def end_change(connection: Connection, number: int, tally: Tally) -> None:
    """Record what a change did; if that is nothing, delete its record.

    Args:
        connection: In the transaction of the change.
        number: From `begin_change`.
        tally: What it did.
    """
    if tally.added or tally.changed or tally.measurements:
        counts = {"added": tally.added, "changed": tally.changed}
        connection.execute(sa.update(changes).where(changes.c.number == number).values(counts))
    else:
        connection.execute(sa.delete(changes).where(changes.c.number == number))


def find_actor() -> str:
    """Who is running this: the user's name on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def upsert_entries(connection: Connection, change: int, source: str, items: Iterable[Item]) -> Tally:
    """Add entries, or bring those with the same key up to date; entries that are as given are not touched.

    What a person has corrected is kept: a collector that runs again does not undo it. A value that is not given does
    not erase a value that is there.

    Args:
        connection: From `Database.write`.
        change: From `begin_change`.
        source: Where values come from that name no source of their own.
        items: Any number; read in batches.
    """
    tally = Tally()
    for batch in _batches(items, _BATCH):
        _upsert_batch(connection, change, source, _without_repeats(batch), tally)
    return tally


def replace(
    connection: Connection,
    change: int,
    row: Row,
    entry: CatalogEntry,
    sources: Mapping[str, str],
    **system: Any,
) -> None:
    """Put a new state of one entry in the place of ``row``, which is kept as a revision.

    Args:
        connection: From `Database.write`.
        change: From `begin_change`.
        row: The present row of `entries`, with the ``sources`` of its values.
        entry: The new state.
        sources: Code -> source, of all known codes.
        system: ``withdrawn``, ``duplicate_of``, ``duplicate_rule``, if they change.
    """
    _keep_revisions(connection, [row])
    values = _columns(entry) | system | {"version": row["version"] + 1, "change": change}
    connection.execute(sa.update(entries).where(entries.c.number == row["number"]).values(values))
    connection.execute(sa.update(provenance).where(provenance.c.entry == row["number"]).values(sources=dict(sources)))


def upsert_papers(connection: Connection, change: int, source: str, rows: Iterable[Mapping[str, Any]]) -> Tally:
    """Add papers with weights, or bring those of the same title up to date.

    Args:
        connection: In a transaction.
        change: Number of the change that this belongs to.
        source: Where the papers come from.
        rows: Columns of the table of papers -> values, one mapping a paper.
    """
    tally = Tally()
    for given in rows:
        paper_id = hash_stably(f"paper:{given['title']}", length=16)
        old = connection.execute(sa.select(papers).where(papers.c.id == paper_id)).mappings().one_or_none()
        if old is None:
            values = {**given, "id": paper_id, "version": 1, "change": change, "source": source}
            connection.execute(sa.insert(papers).values(values))
            tally.added += 1
        elif any(old[name] != value for name, value in given.items()):
            state = {name: value for name, value in old.items() if name not in ("number", "id", "version", "change")}
            revision = {
                "subject": "paper",
                "id": paper_id,
                "version": old["version"],
                "change": old["change"],
                "state": state,
            }
            connection.execute(sa.insert(revisions).values(revision))
            values = {**given, "version": old["version"] + 1, "change": change}
            connection.execute(sa.update(papers).where(papers.c.id == paper_id).values(values))
            tally.changed += 1
        else:
            tally.unchanged += 1
    return tally


def put_measurements(connection: Connection, change: int, given: Iterable[tuple[int, Measured]]) -> int:
    """Store measured values. A value that is replaced stays in the database, marked as ended.

    Args:
        connection: In a transaction.
        change: Number of the change that this belongs to.
        given: Row number of an entry, and a value measured on it.

    Returns:
        How many were new or different.
    """
    given = list({(number, m.name, m.measured_by, m.source): (number, m) for number, m in given}.values())
    if not given:
        return 0
    numbers = sorted({number for number, _ in given})
    present = {}
    for part in _batches(numbers, _BATCH):
        own = sa.select(measurements, measurements.c.entry.label("counts_for"))
        own = own.where(measurements.c.entry.in_(part), measurements.c.ended.is_(None))
        for query in (select_of_duplicates(entries.c.number.in_(part)), own):
            for row in connection.execute(query.order_by(measurements.c.number)).mappings():
                present[row["counts_for"], row["name"], row["measured_by"], row["source"]] = row
    new, ended = [], []
    for number, m in given:
        old = present.get((number, m.name, m.measured_by, m.source))
        if old is not None and (old["value"], old["low"], old["high"]) == (m.value, m.low, m.high):
            continue
        if old is not None and old["entry"] == number:
            ended.append(old["number"])
        new.append({"entry": number, "name": m.name, "value": m.value, "low": m.low, "high": m.high,
                    "measured_by": m.measured_by, "source": m.source, "change": change})  # fmt: skip
    for part in _batches(ended, _BATCH):
        connection.execute(sa.update(measurements).where(measurements.c.number.in_(part)).values(ended=change))
    if new:
        connection.execute(sa.insert(measurements), new)
    return len(new)


def select_of_duplicates(where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """What was measured on the duplicates of some entries (``where``), with the number of the entry it ``counts_for``.

    An export names it with the entry that stands for them.
    """
    twin = entries.alias("twin")
    return (
        sa.select(measurements, entries.c.number.label("counts_for"))
        .join(twin, twin.c.number == measurements.c.entry)
        .join(entries, entries.c.id == twin.c.duplicate_of)
        .where(where, measurements.c.ended.is_(None))
    )


def read_entry(row: Row) -> CatalogEntry:
    """The entry in a row of `entries`."""
    return CatalogEntry(**{code: row[code] for code in load_codebook() if row[code] is not None})


def search_text(entry: CatalogEntry) -> str:
    """The terms under which an entry is found, separated by spaces."""
    texts: list[str] = []
    codes: list[str] = []
    for info in load_codebook().values():
        value = getattr(entry, info.name)
        values = value if info.several else () if value is None else (value,)
        if info.text:
            texts.extend(map(str, values))
        if info.categorical:
            codes.extend(make_code_term(info.name, item) for item in values)
    return " ".join([*list_index_terms(texts), *dict.fromkeys(codes)])


WITH_SOURCES = sa.select(entries, provenance.c.sources).join(provenance, provenance.c.entry == entries.c.number)
"""Rows of `entries`, each with the ``sources`` of its values."""


def read_rows_with_sources(connection: Connection, *where: sa.ColumnElement[bool]) -> Iterator[Row]:
    """Read those rows of `WITH_SOURCES` that meet conditions."""
    yield from connection.execute(WITH_SOURCES.where(*where)).mappings()


def _upsert_batch(connection: Connection, change: int, source: str, batch: list[Item], tally: Tally) -> None:
    ids = [item.entry.id for item in batch]
    present = {row["id"]: row for row in read_rows_with_sources(connection, entries.c.id.in_(ids))}
    new: list[tuple[CatalogEntry, dict[str, str]]] = []
    for item in batch:
        row = present.get(item.entry.id)
        if row is None:
            new.append((item.entry, _sources(item, source)))
            continue
        entry, sources, kept = _merged(row, item, source)
        tally.kept += kept
        if entry == read_entry(row):
            tally.unchanged += 1
        else:
            replace(connection, change, row, entry, sources)
            tally.changed += 1
            tally.touched.append(entry.id)
    numbers = {row["id"]: row["number"] for row in present.values()} | _insert(connection, change, new)
    tally.added += len(new)
    tally.new += [entry.id for entry, _ in new]
    tally.touched += [entry.id for entry, _ in new]
    measured = ((numbers[item.entry.id], m) for item in batch for m in item.measured)
    tally.measurements += put_measurements(connection, change, measured)


def _insert(connection: Connection, change: int, new: list[tuple[CatalogEntry, dict[str, str]]]) -> dict[str, int]:
    if not new:
        return {}
    system = {"version": 1, "change": change, "withdrawn": False}
    rows = [{"id": entry.id} | system | _columns(entry) for entry, _ in new]
    connection.execute(sa.insert(entries), rows)
    query = sa.select(entries.c.id, entries.c.number).where(entries.c.id.in_([entry.id for entry, _ in new]))
    numbers: dict[str, int] = {row.id: row.number for row in connection.execute(query)}
    connection.execute(
        sa.insert(provenance), [{"entry": numbers[entry.id], "sources": sources} for entry, sources in new]
    )
    return numbers


def _merged(row: Row, item: Item, source: str) -> tuple[CatalogEntry, dict[str, str], int]:
    """The present state with what is given laid over it, its sources, and how many corrections were kept."""
    old = read_entry(row)
    sources = dict(row["sources"])
    update, kept = {}, 0
    for code in item.entry.known():
        value = getattr(item.entry, code)
        if value == getattr(old, code):
            continue
        if sources.get(code, "").startswith(PERSON) and not source.startswith(PERSON):
            kept += 1
            continue
        update[code] = value
        sources[code] = item.sources.get(code, source)
    return old.model_copy(update=update), sources, kept


def _sources(item: Item, source: str) -> dict[str, str]:
    return {code: item.sources.get(code, source) for code in item.entry.known() if code != "key"}


def _columns(entry: CatalogEntry) -> dict[str, Any]:
    dumped = entry.model_dump(mode="json")
    values = {code: None if value == [] else value for code, value in dumped.items()}
    return values | {"search_text": search_text(entry)}


def _keep_revisions(connection: Connection, rows: Iterable[Row]) -> None:
    kept = [
        {
            "subject": "entry",
            "id": row["id"],
            "version": row["version"],
            "change": row["change"],
            "state": {
                "entry": read_entry(row).known(),
                "sources": row["sources"],
                "withdrawn": row["withdrawn"],
                "duplicate_of": row["duplicate_of"],
                "duplicate_rule": row["duplicate_rule"],
            },
        }
        for row in rows
    ]
    connection.execute(sa.insert(revisions), kept)


def _without_repeats(batch: list[Item]) -> list[Item]:
    """The last item of each key: a source that names one model twice means the later."""
    return list({item.entry.key: item for item in batch}.values())


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
