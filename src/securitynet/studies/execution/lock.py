"""The lock of a study, which allows one runner at a time.

In a folder, the lock is that of the operating system (``flock``): it ends with the last process that holds it, so the
lock of a dead runner needs no special treatment. Workers hold it together with their runner, so no other runner starts
while one of them may still write. Object stores, and file systems without locks, have a numbered lock
(`securitynet.studies.execution.numbered_lock`).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from securitynet.errors import ConfigurationError, RefusedFile
from securitynet.results.root import Root
from securitynet.studies.execution.numbered_lock import StudyRuns, hold_numbered_lock
from securitynet.untrusted import open_regular

ORPHANS = 10.0
"""Seconds to wait for the workers of a killed runner to end."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class HeldLock:
    """The lock of a study, while it is held.

    Attributes:
        descriptor: File descriptor of the lock on this machine, for workers to hold as well.
        number: Number of the runner, by which its workers notice that another one has taken over; None in a folder
            with locks of its own, where that cannot happen.
    """

    descriptor: int
    number: int | None = None


@contextlib.contextmanager
def hold_study_lock(state: Path, root: Root, note: Note) -> Iterator[HeldLock]:
    """Hold the lock of a study.

    Args:
        state: Folder on this machine for logs and locks.
        root: Root of the results.
        note: Called with a message when the lock of a dead runner is taken over.

    Yields:
        The lock.

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
        locked = _lock(stream, note)
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(_me()).encode())
        stream.flush()
        if locked and root.folder is not None:
            yield HeldLock(stream.fileno())
        else:
            with hold_numbered_lock(root, note) as number:
                yield HeldLock(stream.fileno(), number)
        stream.truncate(0)


def find_holder(state: Path) -> dict[str, Any] | None:
    """Return who holds the lock of a study on this machine; None if nobody does."""
    try:
        import fcntl

        with open_regular(state / "lock") as stream:
            content = stream.read()
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(content) or {"pid": None, "host": platform.node()}
            except OSError:
                return _read(content)
    except (ImportError, OSError, RefusedFile):
        return None
    return None


def _lock(stream: BinaryIO, note: Note) -> bool:
    """Lock a file; False if the system or the file system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return False
    patience = time.monotonic() + ORPHANS
    noted = False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
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
        except OSError:
            return False


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
