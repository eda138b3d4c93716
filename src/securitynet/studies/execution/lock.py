"""One runner at a time on one study.

In a folder the lock is the operating system's (``flock``): it ends with the last process that holds it, so that a dead
runner's lock needs no judgement. Workers hold it with their runner: as long as one of them may still write, nobody else
begins. Where results are in an object store, a runner leaves a mark that it renews; a mark that does not change is a
dead runner's. Nobody's clock is compared with anybody's.
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
"""Seconds that the workers of a killed runner may take to die."""

Note = Callable[[str], None]


class StudyRuns(SecurityNetError):
    """Another runner is at work on this study."""


@contextlib.contextmanager
def hold_lock(state: Path, root: Root, note: Note) -> Iterator[int]:
    """Hold the lock of a study.

    Args:
        state: Folder of this machine for logs and locks.
        root: Where results go.
        note: Told when a dead runner's lock is taken over.

    Yields:
        Descriptor of the lock, for workers to hold as well.

    Raises:
        StudyRuns: If another runner has it.
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
    """Who holds the lock of a study on this machine; None if nobody does."""
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
                    f"Another runner is at work on this study{who}.",
                    hint="See `securitynet study status`; wait for it, or stop it with Ctrl-C.",
                ) from None
            if not noted:
                note("The runner before this one was killed; its workers are ending.")
                noted = True
            time.sleep(0.05)
        except OSError:  # a file system without locks
            note("This file system has no locks: see to it that no other runner works on this study.")
            return


@contextlib.contextmanager
def _marked(root: Root, note: Note) -> Iterator[None]:
    """A mark in an object store, renewed by a thread."""
    try:
        before = root.read(MARK)
    except FileNotFoundError:
        before = b""
    if before:
        note(f"A runner's mark is in {root.name}; waiting whether it is alive.")
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
                    f"Another runner is at work on this study (on {other.get('host', 'another machine')}).",
                    hint="Wait for it, or stop it with Ctrl-C.",
                )
    mine = {**_me(), "token": os.urandom(8).hex()}
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while True:
            with contextlib.suppress(Exception):  # a store that is away for a moment
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
    # A killed process stays in the table until its parent looks: it is dead all the same.
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
