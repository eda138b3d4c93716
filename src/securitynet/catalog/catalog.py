"""The catalog as its users see it: `Catalog`, opened by `securitynet.catalog.open`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from securitynet.catalog import links, store
from securitynet.catalog.codebook import find_code
from securitynet.catalog.collectors import COLLECTORS
from securitynet.catalog.database import Database
from securitynet.catalog.details import Details, read_entry_details
from securitynet.catalog.history import EntryState, read_history
from securitynet.catalog.identify import find_row
from securitynet.catalog.importers.base import ImportReport, Table, TableError
from securitynet.catalog.importers.published import PUBLISHED_READERS, load_robustbench_table, load_timm_table
from securitynet.catalog.importers.read import read_published_table
from securitynet.catalog.known import complete_entry, spell_dataset
from securitynet.catalog.published import TIMM, describe_source
from securitynet.catalog.query import Query
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import PERSON, Item, Measured, Tally
from securitynet.catalog.tables import collections, entries, papers
from securitynet.errors import ConfigurationError, UnknownName

if TYPE_CHECKING:
    import pandas


@dataclass
class CollectReport:
    """What a collection did.

    Attributes:
        collector: Its name.
        source: Library and version.
        entries: How many entries were added, changed, as before.
        linked: Entries newly recognised as another's duplicate.
        added: Keys of the entries that are new.
        changed: Keys of the entries that differ from before.
        gone: Keys of the entries of this source that it gives no longer; they stay in the catalog. Empty for sources
            that are read in parts.
    """

    collector: str
    source: str
    entries: Tally = field(default_factory=Tally)
    linked: int = 0
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class Catalog:
    """The database of public models.

    Args:
        url: SQLAlchemy URL or path of a SQLite file; a file in the user's data folder if not given.
    """

    def __init__(self, url: str | None = None) -> None:
        self.database = Database(url)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def query(
        self,
        text: str = "",
        *,
        sort: str | None = None,
        duplicates: bool = False,
        withdrawn: bool = False,
        filters: Mapping[str, Any] | None = None,
        **codes: Any,
    ) -> Query:
        """Query entries by text and by codes: ``query("resnet", dataset="CIFAR-10", year="2016..")``.

        Args:
            text: Words that must all occur; a word that ends in ``*`` is a beginning.
            sort: Code to sort by, with ``-`` before it for descending.
            duplicates: Whether to include entries that another entry stands for.
            withdrawn: Whether to include withdrawn entries.
            filters: Code -> filter in the language of `securitynet.catalog.filters`.
            **codes: More filters, by code.

        Raises:
            ConfigurationError: If a filter or the order makes no sense.
            UnknownName: If a code is not known.
        """
        given = {**(filters or {}), **codes}
        return Query(self.database, text, given, sort=sort, duplicates=duplicates, withdrawn=withdrawn)

    def get(self, identifier: str) -> CatalogEntry:
        """One entry by its id (or the first digits of it), key, reference, or a name that only one has.

        Raises:
            UnknownName: If there is none.
            ConfigurationError: If several match.
        """
        with self.database.read() as connection:
            return store.read_entry(find_row(connection, identifier))

    def details(self, identifier: str) -> Details:
        """One entry with its sources, measurements and duplicates; see `get` for the identifier."""
        with self.database.read() as connection:
            return read_entry_details(connection, identifier)

    def history(self, entry: str | Details) -> list[EntryState]:
        """All states of an entry, the first one first.

        Args:
            entry: Its identifier (see `get`), or its details if they have been read.
        """
        with self.database.read() as connection:
            return read_history(
                connection, entry if isinstance(entry, Details) else read_entry_details(connection, entry)
            )

    def to_frame(self, query: Query | None = None) -> pandas.DataFrame:
        """Entries with their measured values, one row an entry; columns are codes, ``id`` and measurements' names.

        Args:
            query: Which entries; all that no other stands for, if not given.
        """
        from securitynet.catalog.frames import load_entries

        return load_entries(self.database, query or self.query())

    def measured_values(self, name: str) -> dict[str, float]:
        """Id of each entry -> its value of a measured name: the latest, ours before published ones.

        Args:
            name: Such as ``accuracy.test``.
        """
        from securitynet.catalog.frames import load_values

        return load_values(self.database, name)

    def papers(self) -> list[dict[str, Any]]:
        """Papers that publish weights, as imported."""
        with self.database.read() as connection:
            columns = [column for column in papers.c if column.name not in ("number", "version", "change")]
            rows = connection.execute(sa.select(*columns).order_by(papers.c.number)).mappings()
            return [dict(row) for row in rows]

    def import_table(self, location: str | Path, *, strict: bool = False, source: str | None = None) -> ImportReport:
        """Import a published table, wholly in one transaction; importing it again changes nothing.

        Args:
            location: File or URL; see `securitynet.catalog.importers.read_published_table`.
            strict: Whether one bad row stops all.
            source: What to name as the source of its values.

        Raises:
            TableError: If it is no table, or ``strict`` and a row is bad.
        """
        return self._store_table(read_published_table(location, source=source), strict=strict)

    def import_published(self, kind: str, folder: Path, *, strict: bool = False) -> ImportReport:
        """Import published results from a checkout of their source; importing them again changes nothing.

        Args:
            kind: ``timm-results`` (a checkout of timm, for the models that the catalog holds) or ``robustbench``.
            folder: The checkout.
            strict: Whether one bad row stops all.

        Raises:
            UnknownName: If there is no such kind.
            TableError: If the folder does not hold them, or ``strict`` and a row is bad.
        """
        if kind not in PUBLISHED_READERS:
            raise UnknownName("kind of published results", kind, PUBLISHED_READERS)
        models, problems = PUBLISHED_READERS[kind](folder)
        address = describe_source(kind).address
        if kind == TIMM:
            table = load_timm_table(models, address, {e.name: e for e in self.query(source="timm", duplicates=True)})
        else:
            held = {entry.key: entry for entry in self.query(source="robustbench", duplicates=True)}
            table = load_robustbench_table(models, address, held)
        table.problems += problems
        return self._store_table(table, strict=strict)

    def add_items(self, items: Iterable[Item], source: str) -> Tally:
        """Add entries, or bring those with the same keys up to date, in one transaction.

        Args:
            items: The entries.
            source: Where values come from that name no source of their own.
        """
        return self._store_table(Table(source, list(items)), strict=False).entries

    def _store_table(self, table: Table, *, strict: bool) -> ImportReport:
        if strict and table.problems:
            listed = "; ".join(map(str, table.problems[:5]))
            raise TableError(
                f"{len(table.problems)} bad rows: {listed}.",
                hint="Nothing was written. Mend them, or import without --strict.",
            )
        with self.database.write() as connection:
            change = store.begin_change(connection, "import", table.source)
            tally = store.upsert_entries(connection, change, table.source, table.items)
            linked = links.link_duplicates(connection, change, tally.touched)
            paper_tally = store.upsert_papers(connection, change, table.source, table.papers)
            whole = Tally(
                tally.added + paper_tally.added,
                tally.changed + linked + paper_tally.changed,
                measurements=tally.measurements,
            )
            store.end_change(connection, change, whole)
        purposes: Counter[str] = Counter(item.entry.purpose or "unknown" for item in table.items)
        return ImportReport(tally, paper_tally, table.problems, table.warnings, linked, dict(purposes))

    def collect(self, name: str, **options: Any) -> CollectReport:
        """Run a collector; what it gives in one part is stored in one transaction.

        Args:
            name: One of `securitynet.catalog.collectors.COLLECTORS`.
            options: Passed to the collector.

        Raises:
            NotInstalled: If the library is not installed.
        """
        collector = COLLECTORS.get(name)(**options)
        source = collector.source()
        report = CollectReport(name, source)
        with self.database.read() as connection:
            saved = connection.execute(sa.select(collections.c.cursor).where(collections.c.name == name)).scalar()
        for items, cursor in collector.pages(saved):
            with self.database.write() as connection:
                change = store.begin_change(connection, "collect", source)
                tally = store.upsert_entries(connection, change, source, items)
                linked = links.link_duplicates(connection, change, tally.touched)
                if cursor is not None:
                    connection.execute(sa.delete(collections).where(collections.c.name == name))
                    values = {"name": name, "cursor": cursor, "change": change}
                    connection.execute(sa.insert(collections).values(values))
                    store.end_change(connection, change, Tally(tally.added, tally.changed + linked, measurements=1))
                else:
                    whole = Tally(tally.added, tally.changed + linked, measurements=tally.measurements)
                    store.end_change(connection, change, whole)
            _sum_up(report.entries, tally)
            report.linked += linked
            if cursor is None:
                report.gone = self._find_gone(collector.library, {item.entry.id for item in items})
        new = set(report.entries.new)
        report.added = self._find_keys(report.entries.new)
        report.changed = self._find_keys([entry for entry in report.entries.touched if entry not in new])
        return report

    def _find_gone(self, source: str, given: set[str]) -> tuple[str, ...]:
        """Keys of the entries of a source that are not among those that it gives."""
        wanted = sa.select(entries.c.id, entries.c.key).where(entries.c.source == source, ~entries.c.withdrawn)
        with self.database.read() as connection:
            return tuple(sorted(row.key for row in connection.execute(wanted) if row.id not in given))

    def _find_keys(self, ids: list[str]) -> tuple[str, ...]:
        keys: list[str] = []
        with self.database.read() as connection:
            for start in range(0, len(ids), 500):
                wanted = sa.select(entries.c.key).where(entries.c.id.in_(ids[start : start + 500]))
                keys += connection.execute(wanted).scalars()
        return tuple(sorted(keys))

    def add(self, codes: Mapping[str, Any], *, note: str | None = None) -> CatalogEntry:
        """Add one entry by hand; ``key`` is made of source, name and dataset if not given.

        Raises:
            ConfigurationError: If a value is not allowed, or an entry of that key is there.
        """
        given = {find_code(name).name: value for name, value in codes.items() if value not in (None, "", ())}
        given.setdefault("source", "manual")
        if "name" not in given:
            raise ConfigurationError("An entry needs a name.", hint="Give --name.")
        dataset = f"@{spell_dataset(str(given['dataset']))}" if "dataset" in given else ""
        given.setdefault("key", f"{given['source']}:{given['name']}{dataset}")
        parsed = {
            name: find_code(name).parse(value) if isinstance(value, str) else find_code(name).check(value)
            for name, value in given.items()
        }
        entry, sources = complete_entry(parsed)
        source = PERSON + store.find_actor()
        with self.database.write() as connection:
            if connection.execute(sa.select(entries.c.number).where(entries.c.id == entry.id)).first():
                raise ConfigurationError(
                    f"There is an entry {entry.key} already.", hint=f"Change it: securitynet catalog edit {entry.id}."
                )
            change = store.begin_change(connection, "add", source, note)
            tally = store.upsert_entries(connection, change, source, [Item(entry, sources)])
            links.link_duplicates(connection, change, tally.touched)
            store.end_change(connection, change, tally)
        return entry

    def edit(
        self, identifier: str, codes: Mapping[str, Any], *, note: str | None = None, source: str | None = None
    ) -> CatalogEntry:
        """Correct codes of an entry by hand; later collections leave the corrections alone.

        Args:
            identifier: Id, key, reference or unique name of the entry.
            codes: Code -> its new value, as text or in its own type; an empty one clears the code.
            note: Reason, for the history.
            source: Source of the values; by default the person who runs this.

        Raises:
            ConfigurationError: If a value is not allowed, or ``key`` is among them.
        """
        source = source or PERSON + store.find_actor()
        with self.database.write() as connection:
            row = find_row(connection, identifier)
            old = store.read_entry(row)
            update = {}
            for name, value in codes.items():
                info = find_code(name)
                if info.name == "key":
                    raise ConfigurationError("The key of an entry never changes.", hint="Withdraw it and add another.")
                update[info.name] = info.parse(value) if isinstance(value, str) else info.check(value)
                if info.name == "dataset" and update[info.name] is not None:
                    update[info.name] = spell_dataset(update[info.name])
                if info.required and update[info.name] is None:
                    raise ConfigurationError(f"An entry cannot be without {info.name}.")
            entry = old.model_copy(update=update)
            # A value that a person confirms is that person's from now on, and kept like a correction.
            sources = row["sources"] | dict.fromkeys(update, source)
            if entry != old or sources != row["sources"]:
                change = store.begin_change(connection, "edit", source, note)
                store.replace(connection, change, row, entry, sources)
                links.link_duplicates(connection, change, [entry.id])
                store.end_change(connection, change, Tally(changed=1))
        return entry

    def withdraw(self, identifier: str, *, note: str, restore: bool = False) -> None:
        """Take an entry out of queries, or put it back; the entry and its history stay in the database.

        Args:
            identifier: Id, key, reference or unique name of the entry.
            note: Reason, for the history.
            restore: Whether to put it back.
        """
        with self.database.write() as connection:
            row = find_row(connection, identifier)
            if row["withdrawn"] == (not restore):
                return
            change = store.begin_change(connection, "withdraw", PERSON + store.find_actor(), note)
            store.replace(connection, change, row, store.read_entry(row), row["sources"], withdrawn=not restore)
            # Else the entries for which it stood would be gone with it.
            freed = links.move_duplicates(connection, change, row["id"], None)
            links.link_duplicates(connection, change, [row["id"], *freed])
            store.end_change(connection, change, Tally(changed=1 + len(freed)))

    def link(self, identifier: str, stands: str | None, *, note: str | None = None) -> None:
        """Set by hand which entry stands for this one.

        Args:
            identifier: Id, key, reference or unique name of the duplicate.
            stands: The same of the entry that stands for it; None if it is no duplicate.
            note: Reason, for the history.

        Raises:
            ConfigurationError: If the other entry is this one, a duplicate itself, or withdrawn.
        """
        with self.database.write() as connection:
            row = find_row(connection, identifier)
            other = find_row(connection, stands) if stands else None
            if other and (other["id"] == row["id"] or other["duplicate_of"] or other["withdrawn"]):
                raise ConfigurationError(
                    f"{other['key']} cannot stand for {row['key']}.",
                    hint="Choose an entry that is no duplicate itself, and is not withdrawn.",
                )
            change = store.begin_change(connection, "link", PERSON + store.find_actor(), note)
            links.set_link(connection, change, row["number"], other["id"] if other else None, links.BY_HAND)
            # No chains: what it stood for has the same weights, and one entry stands for all.
            moved = links.move_duplicates(connection, change, row["id"], other["id"]) if other else []
            store.end_change(connection, change, Tally(changed=1 + len(moved)))

    def record(self, identifier: str, measured: Iterable[Measured]) -> int:
        """Store measured values of an entry; how many were new or different."""
        with self.database.write() as connection:
            row = find_row(connection, identifier)
            change = store.begin_change(connection, "measure", PERSON + store.find_actor())
            new = store.put_measurements(connection, change, [(row["number"], m) for m in measured])
            store.end_change(connection, change, Tally(measurements=new))
        return new


def _sum_up(total: Tally, part: Tally) -> None:
    for name in ("added", "changed", "unchanged", "measurements", "kept"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.touched += part.touched
    total.new += part.new
