"""A disk that is full from its n-th operation on."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

import pytest


class FailingDisk:
    """Counts what is written, and raises ``ENOSPC`` at one of these operations and all that follow.

    Attributes:
        operations: Number of operations so far.
    """

    def __init__(self, fails_at: int | None) -> None:
        self.operations = 0
        self._fails_at = fails_at

    def count(self) -> None:
        self.operations += 1
        if self._fails_at is not None and self.operations >= self._fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Stream:
    """A file whose every write counts."""

    def __init__(self, inner, disk):
        self._inner, self._disk = inner, disk

    def __enter__(self):
        self._inner.__enter__()
        return self

    def __exit__(self, *error):
        return self._inner.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def write(self, content):
        self._disk.count()
        return self._inner.write(content)

    def writelines(self, lines):
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def failing_disk(fails_at: int | None) -> Iterator[FailingDisk]:
    """Within the block, temporary files, writes, flushes to the disk and renames are counted, and fail from one on."""
    disk = FailingDisk(fails_at)

    def counted(function):
        def call(*arguments, **options):
            disk.count()
            return function(*arguments, **options)

        return call

    fdopen = os.fdopen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", counted(tempfile.mkstemp))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fdopen", lambda *arguments, **options: Stream(fdopen(*arguments, **options), disk))
        yield disk
