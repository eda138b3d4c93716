"""The index: a database of the content of trial and target files. **The files are the truth**; it can be rebuilt.

It is refreshed by comparing the version of each file with the version that was read, so that only new and changed files
are opened. One process writes it: the runner, or ``study reindex``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.errors import SecurityNetError
from securitynet.memory import pause_garbage_collection
from securitynet.records import TrialResult
from securitynet.results import store, study_targets
from securitynet.results.file_readers import read_row_parts
from securitynet.results.file_rows import FileRows, Row, digest_text
from securitynet.results.root import Root
from securitynet.results.store import restore_trial
from securitynet.results.study_targets import StudyTargetRecord, parse_study_target
from securitynet.untrusted import list_foreign_queries

logger = logging.getLogger(__name__)

_BATCH = 500
_MALFORMED = re.compile("malformed|not a database|file is encrypted")

metadata = sa.MetaData()

files = sa.Table(
    "result_files",
    metadata,
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
    sqlite_with_rowid=False,  # its key is looked up only, and would be stored twice
)

trials = sa.Table(
    "result_trials",
    metadata,
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("subject", sa.String(16), nullable=False, index=True),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("method", sa.Text, nullable=False, index=True),
    sa.Column("access", sa.String(16), nullable=False),
    sa.Column("auxiliary", sa.String(32), nullable=False),
    sa.Column("configuration", sa.JSON, nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("level", sa.Float),
    sa.Column("rates", sa.Text, nullable=False),
    sa.Column("queries_total", sa.BigInteger, nullable=False),
    sa.Column("queries_unique", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("version", sa.Text),
    sa.Column("finished", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
)

measurements = sa.Table(
    "result_measurements",
    metadata,
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("trial", sa.String(32), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("level", sa.Float, nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("note", sa.Text),
    sqlite_with_rowid=False,  # its key is looked up only, and would be stored twice
)

targets = sa.Table(
    "result_subjects",
    metadata,
    sa.Column("root", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("subject", sa.String(16), index=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("catalog", sa.Text),
    sa.Column("record", sa.Text, nullable=False),
)


Result = TypeVar("Result")


class IndexFailure(SecurityNetError):
    """The database of the index cannot be used. The files, which are the truth, are not affected."""


@dataclass
class Refreshed:
    """The outcome of refreshing the index.

    Attributes:
        read: Files that were new or had changed.
        gone: Files that were no longer there.
        damaged: Path of an unreadable file -> reason.
    """

    read: int = 0
    gone: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialState:
    """What the index holds of a trial, for the decision whether it has to run.

    Attributes:
        status: ``ok``, ``failed`` or ``skipped``.
        reason: Why it failed or was skipped.
        version: Version of securitynet that ran it.
        level: Confidence level of its intervals; None if it has no measurements.
        rates: False-positive rates in the names of its measurements, as written there.
    """

    status: str
    reason: str | None
    version: str | None
    level: float | None
    rates: frozenset[str]


class Index:
    """The database.

    Args:
        url: SQLAlchemy URL, or the path of a SQLite file.
        root: Where the files are. Several roots can share a database.
    """

    def __init__(self, url: str | Path, root: Root) -> None:
        text = str(url)
        self.root = root
        self.name = root.name if root.folder is None else str(root.folder.absolute())
        if "://" not in text:
            if str(Path(text).parent.absolute()) == self.name:
                self.name = "."  # the folder can be handed on, and its path is its owner's
            Path(text).parent.mkdir(parents=True, exist_ok=True)
            text = f"sqlite:///{text}"
        self._engine = sa.create_engine(text)
        if text.startswith("sqlite"):
            sa.event.listen(self._engine, "connect", self._prepare)
        self._mended(self._make_tables)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def refresh(self) -> Refreshed:
        """Read the files that are new or have changed, and forget those that are gone.

        Damaged files are listed in the result and are not in the index. A damaged SQLite file is made again.

        Raises:
            OSError: If the disk is full.
            IndexFailure: If the database cannot be used for another reason.
        """
        return self._mended(self._refresh)

    def _make_tables(self) -> None:
        """Make the tables; those of another version of this module are dropped first, since the files hold it all."""
        inspector = sa.inspect(self._engine)
        present = set(inspector.get_table_names())
        for table in metadata.tables.values():
            if table.name not in present:
                continue
            if {column["name"] for column in inspector.get_columns(table.name)} != set(table.columns.keys()):
                metadata.drop_all(self._engine)
                break
        metadata.create_all(self._engine)

    def _refresh(self) -> Refreshed:
        refreshed = Refreshed()
        with self._engine.begin() as connection:
            query = sa.select(files.c.path, files.c.stamp).where(files.c.root == self.name)
            known = {path: version for path, version in connection.execute(query).tuples()}  # noqa: C416 (a result, not a dict)
            seen = dict(self.root.files(store.FOLDER, ".json")) | dict(self.root.files(study_targets.FOLDER, ".json"))
            gone = [path for path in known if path not in seen]
            changed = [path for path, version in seen.items() if known.get(path) != version]
            self._forget(connection, [*gone, *(path for path in changed if path in known)])
            refreshed.gone = len(gone)
            with pause_garbage_collection():
                parts = list(_parts(sorted(changed)))  # in the order of the keys, in which a tree is filled fastest
                for rows in read_row_parts(self.root, self.name, parts):
                    self._write(connection, rows, seen)
                    refreshed.read += len(rows.read)
                    refreshed.damaged |= rows.damaged
        return refreshed

    def rebuild(self) -> Refreshed:
        """Forget everything about this root and read all files."""
        with self._engine.begin() as connection:
            for table in (files, trials, measurements, targets):
                connection.execute(sa.delete(table).where(table.c.root == self.name))
        return self.refresh()

    def trial_states(self) -> dict[str, TrialState]:
        """Trial id -> its state, for all trials in the index."""
        columns = trials.c.id, trials.c.status, trials.c.reason, trials.c.version, trials.c.level, trials.c.rates
        with self._reading() as connection:
            rows = connection.execute(sa.select(*columns).where(trials.c.root == self.name)).tuples()
            return {
                id_: TrialState(status, reason, made_by, level, frozenset(rates.split(",")) - {""})
                for id_, status, reason, made_by, level, rates in rows
            }

    def target_records(self) -> Iterator[StudyTargetRecord]:
        """All target records, by key."""
        query = sa.select(targets.c.record).where(targets.c.root == self.name).order_by(targets.c.key)
        with self._reading() as connection:
            for (text,) in connection.execute(query):
                yield parse_study_target(text)

    def trials(self, ids: Iterable[str] | None = None) -> Iterator[TrialResult]:
        """Trial records in the order of their ids: all, or those of ``ids`` that exist."""
        return (trial for _, trial in self.identified_trials(ids))

    def identified_trials(self, ids: Iterable[str] | None = None) -> Iterator[tuple[str, TrialResult]]:
        """(id, trial) as `trials`: the id is a digest, which is better not computed again."""
        columns = trials.c.id, trials.c.record, trials.c.checksum
        query = sa.select(*columns).where(trials.c.root == self.name).order_by(trials.c.id)
        with self._reading() as connection:
            parts = [query] if ids is None else [query.where(trials.c.id.in_(p)) for p in _parts(sorted(set(ids)))]
            for part in parts:
                for id_, text, checksum in connection.execute(part):
                    # The digest and the id were checked in the file; whether the copy is the same is soon known.
                    # In a file of someone else, a column of texts may hold bytes or nothing.
                    if not isinstance(text, str) or digest_text(text) != checksum:
                        raise ValueError(f"trial {id_} is not as it was written")
                    yield id_, restore_trial(text)

    def timings(self) -> dict[str, tuple[int, float]]:
        """Method -> (number of trials that are ok, their mean seconds)."""
        query = (
            sa.select(trials.c.method, sa.func.count(), sa.func.avg(trials.c.seconds))
            .where(trials.c.root == self.name, trials.c.status == "ok", trials.c.seconds.is_not(None))
            .group_by(trials.c.method)
        )
        with self._reading() as connection:
            return {method: (int(n), float(mean)) for method, n, mean in connection.execute(query).tuples()}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise self._explain(error) from error
        except ValueError as error:  # the copy of a record; those in files have been checked
            raise self._damaged(str(error)) from error

    def _mended(self, work: Callable[[], Result]) -> Result:
        """Do something with the database; if its file turns out to be damaged, make it again and do it once more."""
        try:
            return work()
        except sa.exc.DatabaseError as error:
            file = self._engine.url.database
            if self._engine.dialect.name != "sqlite" or not file or not _MALFORMED.search(str(error.orig)):
                raise self._explain(error) from error
            logger.warning("The index %s is damaged and is made again from the files.", Path(file).name)
            self._engine.dispose()
            for suffix in ("", "-journal", "-wal", "-shm"):
                Path(f"{file}{suffix}").unlink(missing_ok=True)
        try:
            self._make_tables()
            return work()
        except sa.exc.DatabaseError as error:
            raise self._explain(error) from error

    def _explain(self, error: sa.exc.DatabaseError) -> Exception:
        words = str(error.orig)
        if "disk is full" in words or "No space left" in words:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._engine.url.database)
        if _MALFORMED.search(words):
            return self._damaged(words)
        return IndexFailure(f"The index of the results cannot be used: {words}.", hint="Choose another one with --db.")

    def _prepare(self, connection: Any, _record: Any) -> None:
        # An index that a power cut damages is made again from the files.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")  # in KiB: a large index is filled in memory
        if names := list_foreign_queries(connection):
            raise self._damaged(f"it holds views or triggers ({', '.join(names)}), which an index has not")

    def _damaged(self, words: str) -> IndexFailure:
        return IndexFailure(
            f"The index of the results is damaged: {words}.",
            hint="Make it again from the files: securitynet study reindex RESULTS.",
        )

    def _write(self, connection: Connection, rows: FileRows, versions: Mapping[str, str]) -> None:
        for table, content in (
            (files, [(self.name, path, versions[path]) for path in rows.read]),
            (trials, rows.trials),
            (measurements, rows.measurements),
            (targets, rows.targets),
        ):
            if content:
                _insert(connection, table, content)

    def _forget(self, connection: Connection, paths: list[str]) -> None:
        for part in _parts(paths):
            names = [path.rpartition("/")[2].removesuffix(".json") for path in part]
            for table, column in (
                (files, files.c.path),
                (trials, trials.c.id),
                (measurements, measurements.c.trial),
                (targets, targets.c.key),
            ):
                values = part if table is files else names
                connection.execute(sa.delete(table).where(table.c.root == self.name, column.in_(values)))


def _insert(connection: Connection, table: sa.Table, rows: list[Row]) -> None:
    names = table.columns.keys()
    if connection.dialect.name != "sqlite":
        connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        return
    # A study has millions of rows, and SQLAlchemy spends more time on each than SQLite does.
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    for place, column in enumerate(table.columns):
        if isinstance(column.type, sa.JSON):
            rows = [(*row[:place], json.dumps(row[place]), *row[place + 1 :]) for row in rows]
    connection.exec_driver_sql(f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})', rows)


def _parts(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
