"""Outputs received from an endpoint, stored in an SQLite file: no image is paid for twice.

A response is committed before the next request is sent, so a killed process loses at most the one in flight. The
process that sends requests holds the file's write lock: several processes that share the file never pay twice for one
image, and never exceed the query cap together.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import TargetError

logger = logging.getLogger(__name__)

Row = NDArray[np.float32]

_BUSY_SECONDS = 1.0  # how long SQLite blocks; attempts repeat until the lock is free, so that Ctrl-C works

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS answers (
        endpoint TEXT NOT NULL, key BLOB NOT NULL, outputs BLOB NOT NULL, PRIMARY KEY (endpoint, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS endpoints (
        endpoint TEXT PRIMARY KEY, version TEXT, classes INTEGER NOT NULL
    ) WITHOUT ROWID""",
)


class StoredOutputs:
    """The stored outputs of one endpoint.

    Args:
        path: The file, shared with other endpoints and processes; None stores in memory only.
        endpoint: Digest of address, model and version.
        shown: The endpoint's address, for messages.

    Raises:
        TargetError: If the file cannot be used.
    """

    def __init__(self, path: Path | None, endpoint: str, shown: str) -> None:
        self.path = path
        self.endpoint = endpoint
        self._shown = shown
        with self._explained():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: transactions are begun and ended in `turn`, nowhere else.
            self._db = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA synchronous = FULL")
            self._patiently("PRAGMA journal_mode = WAL")
            for statement in _SCHEMA:
                self._patiently(statement)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def count(self) -> int:
        """Number of distinct images whose outputs are stored."""
        with self._explained():
            return int(
                self._db.execute("SELECT count(*) FROM answers WHERE endpoint = ?", (self.endpoint,)).fetchone()[0]
            )

    def known(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """The stored outputs of some images, by key. Damaged ones are left out."""
        rows: dict[bytes, Row] = {}
        with self._explained():
            for key in keys:
                record = self._db.execute(
                    "SELECT outputs FROM answers WHERE endpoint = ? AND key = ?", (self.endpoint, key)
                ).fetchone()
                row = None if record is None else _unpack(record[0])
                if row is not None:
                    rows[key] = row
        return rows

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the exclusive right to send requests; outputs stored meanwhile are committed even after an error."""
        with self._explained():
            self._patiently("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            with self._explained():
                self._db.execute("COMMIT")

    def store(self, keys: list[bytes], rows: Row, version: str | None) -> None:
        """Store outputs; call this within `turn`.

        Args:
            keys: Keys of the images, N.
            rows: Their outputs, N×K.
            version: Version of the model that responded; None if unknown.

        Raises:
            TargetError: If the model's version, or the number of classes, differs from that of earlier outputs.
        """
        with self._explained():
            before = self._db.execute(
                "SELECT version, classes FROM endpoints WHERE endpoint = ?", (self.endpoint,)
            ).fetchone()
            if before is None:
                self._db.execute("INSERT INTO endpoints VALUES (?, ?, ?)", (self.endpoint, version, rows.shape[1]))
            elif before[1] != rows.shape[1]:
                raise TargetError(
                    f"{self._shown} returns {rows.shape[1]} class scores; it used to be {before[1]}: the model "
                    "has changed.",
                    hint=f"Outputs of two models can't be mixed. {self._fresh_start()}",
                )
            elif None not in (version, before[0]) and version != before[0]:
                raise TargetError(
                    f"{self._shown} now serves version {version}; the outputs so far are of version {before[0]}.",
                    hint=f"Pin one in the address: …/versions/{version}. {self._fresh_start()}",
                )
            self._db.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                [(self.endpoint, key, _pack(row)) for key, row in zip(keys, rows, strict=True)],
            )

    def _fresh_start(self) -> str:
        return "" if self.path is None else f"To start again, move {self.path.name} away."

    def _patiently(self, statement: str) -> None:
        """Execute a statement as soon as no other process holds the lock."""
        for attempt in itertools.count():
            if attempt == 1:
                logger.info("Another process is querying %s; waiting for it to finish", self._shown)
            try:
                self._db.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) and "busy" not in str(error):
                    raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise TargetError(
                f"The file of paid outputs {self.path or ''} cannot be used: {error}.",
                hint="If it is damaged, move it away (its outputs must then be requested again); else check the disk.",
            ) from error


def _pack(row: Row) -> bytes:
    payload = row.astype("<f4").tobytes()
    return zlib.crc32(payload).to_bytes(4, "little") + payload


def _unpack(content: bytes) -> Row | None:
    check, payload = content[:4], content[4:]
    if not payload or len(payload) % 4 or zlib.crc32(payload).to_bytes(4, "little") != check:
        return None
    return np.frombuffer(payload, dtype="<f4").astype(np.float32)
