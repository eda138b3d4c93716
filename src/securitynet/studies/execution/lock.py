"""The lock of a study, which allows one runner at a time.

In a folder, the lock is that of the operating system (``flock``): it ends with the last process that holds it, so the
lock of a dead runner needs no special treatment. Workers hold it together with their runner, so no other runner starts
while one of them may still write. In an object store, a runner leaves a mark that it keeps renewing; a mark that stops
changing belongs to a dead runner. Clocks of different machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.results.root import Root

MARK = "runner.json"
BEAT_SECONDS = 5.0
PATIENCE = 3 * BEAT_SECONDS
ORPHANS = 10.0
"""Seconds to wait for the workers of a killed runner to end."""

Note = Callable[[str], None]


class StudyRuns(SecurityNetError):
    """Another runner is working on this study."""


@contextlib.contextmanager
def hold_lock(state: Path, root: Root, note: Note) -> Iterator[int]:
    """Hold the lock of a study.

    Args:
        state: Folder on this machine for logs and locks.
        root: Root of the results.
        note: Called with a message when the lock of a dead runner is taken over.

    Yields:
        File descriptor of the lock, for workers to hold as well.

    Raises:
        StudyRuns: If another runner holds the lock.
    """
    state.mkdir(parents=True, exist_ok=True)
    path = state / "lock"
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}.", hint="Choose another --out.") from error
    with stream:
        _lock(stream, note)
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(_me()).encode())
        stream.flush()
        with contextlib.nullcontext() if root.folder is not None else _marked(root, note):
            yield stream.fileno()
        stream.truncate(0)


def find_holder(state: Path) -> dict[str, Any] | None:
    """Return who holds the lock of a study on this machine; None if nobody does."""
    try:
        import fcntl

        with (state / "lock").open("rb") as stream:
            content = stream.read()
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(content) or {"pid": None, "host": platform.node()}
            except OSError:
                return _read(content)
    except (ImportError, OSError):
        return None
    return None


def _lock(stream: BinaryIO, note: Note) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return
    patience = time.monotonic() + ORPHANS
    noted = False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            stream.seek(0)
            other = _read(stream.read()) or {}
            here = other.get("host") == platform.node()
            if time.monotonic() > patience or not here or _alive(other.get("pid")):
                who = f" (process {other['pid']} on {other['host']})" if other else ""
                raise StudyRuns(
                    f"Another runner is working on this study{who}.",
                    hint="See `securitynet study status`; wait for it, or stop it with Ctrl-C.",
                ) from None
            if not noted:
                note("The previous runner was killed; waiting for its workers to end.")
                noted = True
            time.sleep(0.05)
        except OSError:  # a file system without locks
            note("This file system has no locks: make sure that no other runner works on this study.")
            return


@contextlib.contextmanager
def _marked(root: Root, note: Note) -> Iterator[None]:
    """Hold a mark in an object store that a thread keeps renewing."""
    try:
        before = root.read(MARK)
    except FileNotFoundError:
        before = b""
    if before:
        note(f"Found the mark of a runner in {root.name}; waiting to see whether it is alive.")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(0.5)
            try:
                now = root.read(MARK)
            except FileNotFoundError:
                break
            if now != before:
                other = _read(now) or {}
                raise StudyRuns(
                    f"Another runner is working on this study (on {other.get('host', 'another machine')}).",
                    hint="Wait for it, or stop it with Ctrl-C.",
                )
    mine = {**_me(), "token": os.urandom(8).hex()}
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while True:
            with contextlib.suppress(Exception):  # the store may be unavailable for a moment
                root.write(MARK, json.dumps({**mine, "beat": number}).encode())
            number += 1
            if stop.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        root.remove(MARK)


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node()}


def _read(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A zombie stays in the process table until its parent collects it, but it is dead.
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
