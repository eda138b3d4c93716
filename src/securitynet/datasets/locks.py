"""File locks that admit one process at a time, on systems that have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hold_file_lock(path: Path) -> Iterator[bool]:
    """Hold a lock on the file ``path``, created if absent; it ends with the block or with the process.

    Yields:
        Whether the lock is held. Windows and some network file systems have no such locks. Two processes may then do
        the same work, which is safe, because their files are replaced as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with path.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
