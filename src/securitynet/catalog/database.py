"""Connections: SQLite or PostgreSQL by URL, write transactions that wait their turn, and migrations."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from securitynet.catalog.full_text import SQLITE_SEARCH
from securitynet.catalog.location import find_default_url
from securitynet.errors import ConfigurationError, MissingExtra, SecurityNetError
from securitynet.untrusted import list_foreign_queries

# All writers of one PostgreSQL database take this advisory lock, so that two imports run one after the other.
WRITER_LOCK = 0x5EC0_CA7A
WAIT_SECONDS = 120
_CONNECT_SECONDS = 10
_MIGRATIONS = files("securitynet.catalog") / "migrations"
_POOL = 10
"""Connections that stay open once they were needed: of more, each would be made anew for every transaction."""


class CatalogError(SecurityNetError):
    """A catalog that cannot be opened, read or written."""


class Database:
    """An engine, its dialect, and the two kinds of transaction.

    Args:
        url: SQLAlchemy URL, or the path of a SQLite file; None for `find_default_url`.

    Raises:
        ConfigurationError: If the URL makes no sense.
        MissingExtra: If PostgreSQL is asked for and its driver is not installed.
        CatalogError: If the database cannot be reached or is no catalog.
    """

    def __init__(self, url: str | None = None) -> None:
        self.engine = _engine(url or find_default_url())
        self.dialect = self.engine.dialect.name
        self._shared = threading.local()
        self._migrate()

    @property
    def sqlite(self) -> bool:
        """Whether this is SQLite (else PostgreSQL)."""
        return self.dialect == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        shared: Connection | None = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
            return
        with self.engine.connect() as connection:
            if not self.sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all that this thread reads inside: one state, and fewer ways to the server and back."""
        with self.read() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is the only writer; it is done wholly when the block ends well, else not at all.

        Raises:
            CatalogError: If the database refuses.
        """
        with self.engine.connect() as connection:
            # The option is read by the listener that begins SQLite's transactions.
            connection = connection.execution_options(securitynet_write=True)
            try:
                with connection.begin():
                    if not self.sqlite:
                        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK)))
                    yield connection
            except OperationalError as error:  # the disk is full, another writer does not end, the server went away
                raise CatalogError(
                    f"The catalog could not be written: {error.orig}.", hint="Nothing of this change was written."
                ) from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _migrate(self) -> None:
        newest = find_newest_revision()
        try:
            with self.read() as connection:
                if self._revision(connection) == newest:
                    return
            # Imported here, for it takes a quarter of a second, and most catalogs have these tables already.
            from alembic import command
            from alembic.config import Config

            with as_file(_MIGRATIONS) as folder, self.write() as connection:
                # Looked at again: another process may have migrated while this one waited for the lock.
                if self._revision(connection) != newest:
                    config = Config()
                    config.set_main_option("script_location", str(folder).replace("%", "%%"))
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
        except sa.exc.DatabaseError as error:
            raise CatalogError(
                f"The catalog {self.engine.url.render_as_string()} cannot be opened: {error.orig}.",
                hint="Give another --db, or repair or remove this one.",
            ) from None

    def _revision(self, connection: Connection) -> str | None:
        tables = sa.inspect(connection).get_table_names()
        revision: str | None = None
        if "alembic_version" in tables:
            revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if revision is None and "entries" not in tables and tables and self.sqlite:
            raise CatalogError(
                f"{self.engine.url.database} is a SQLite file of something else (tables: {', '.join(tables[:5])}).",
                hint="Give another --db.",
            )
        if revision is not None and revision not in _list_revisions():
            raise CatalogError(
                f"The catalog {self.engine.url.render_as_string()} has tables of revision {revision!r}, which this "
                "version does not know.",
                hint="Use the version of SecurityNet that made it, or give another --db.",
            )
        return revision


def find_newest_revision() -> str:
    """The revision of today's tables: the number in the name of the last migration, ``v0002_weights_file.py``."""
    return max(_list_revisions())


def _list_revisions() -> set[str]:
    return {file.name[1:5] for file in (_MIGRATIONS / "versions").iterdir() if file.name.startswith("v")}


def _engine(url: str) -> Engine:
    if "://" not in url:
        url = f"sqlite:///{Path(url).expanduser().resolve()}"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            f"{url!r} is no database URL.", hint="Write sqlite:///FILE or postgresql://USER@HOST/NAME."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            parsed,
            json_serializer=_json,
            pool_size=_POOL,
            connect_args={"timeout": WAIT_SECONDS, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"The catalog cannot be kept in {parsed.get_backend_name()}.", hint="Use SQLite or PostgreSQL."
        )
    try:
        # A server that takes the connection and says nothing would be waited for without end.
        limit = {} if "connect_timeout" in parsed.query else {"connect_timeout": _CONNECT_SECONDS}
        return sa.create_engine(parsed, json_serializer=_json, pool_size=_POOL, connect_args=limit)
    except ModuleNotFoundError:
        raise MissingExtra("psycopg", "postgres", "A catalog in PostgreSQL") from None


def _json(value: Any) -> str:
    # As it reads: filters look into lists as text.
    return json.dumps(value, ensure_ascii=False)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    if names := list_foreign_queries(connection, SQLITE_SEARCH):
        raise CatalogError(
            f"The SQLite file holds views or triggers that a catalog has not ({', '.join(names)}): it is not read.",
            hint="Give another --db.",
        )
    # Python's driver would begin transactions itself, and only before some statements; `_begin_sqlite` does it for all.
    connection.isolation_level = None
    for attempt in range(100):
        try:
            # Readers go on while one process writes. Two processes that switch at once: SQLite does not wait here.
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 99:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cache_size=-65536")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("securitynet_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
