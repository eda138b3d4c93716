"""Ends a process by SIGKILL at the n-th event of a kind, of those that change what lies below a folder.

Or fills its disk: what takes space fails from the n-th event on.

`install` counts the events in this process. With the folder ``dying_site`` on ``PYTHONPATH``, the Python processes that
a command starts count too, into the same files: the n-th event of all is the last of the process that meets it.
"""

# Functions of `os` are what is replaced here.
# ruff: noqa: PTH100, PTH110, PTH115

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("folder", "create", "write", "flush", "replace", "replaced", "remove", "statement", "commit")
"""A folder or a file was made; half of some content is written; it is about to be flushed, moved or deleted, or was
moved; a statement that changes a database, or its commit, is about to run."""

SPACE = "space"
"""Each event that takes space, whatever its kind; from the n-th on the disk is full, and a write leaves a half."""

UNDER, COUNTS, AT = "DYING_UNDER", "DYING_COUNTS", "DYING_AT"
"""Environment variables: the folder, another one for the counts, and ``KIND:N``; without that, events are counted."""


def dying_environment(under: Path, counts: Path, at: tuple[str, int] | None) -> dict[str, str]:
    """The environment variables for a command that shall die, and for its worker processes."""
    counts.mkdir(parents=True)
    here = Path(__file__).parent
    paths = [str(here / "dying_site"), str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    place = {} if at is None else {AT: f"{at[0]}:{at[1]}"}
    return {UNDER: str(under), COUNTS: str(counts), "PYTHONPATH": os.pathsep.join(paths), **place}


def read_counts(counts: Path) -> dict[str, int]:
    """Kind -> number of its events."""
    return {path.name: path.stat().st_size for path in counts.iterdir()}


def install(*, databases: bool) -> None:
    """Count this process's events, and die at the one that the environment names.

    Args:
        databases: Whether statements and commits count, which imports SQLAlchemy; checkpoints are then written
            whenever they can be, so that their number does not depend on the clock.
    """
    under, counts = os.environ[UNDER], os.environ[COUNTS]
    kind_to_die, _, number_to_die = os.environ.get(AT, "").partition(":")
    open_file, write_file = os.open, os.write

    def resolve(path: Any) -> str:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        return os.path.abspath(os.fsdecode(path))

    def counts_here(path: Any) -> bool:
        try:
            return resolve(path).startswith(under + os.sep)
        except (OSError, TypeError):
            return False

    def reach(kind: str, before: Callable[[], None] = lambda: None) -> None:
        descriptor = open_file(f"{counts}/{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        write_file(descriptor, b".")
        number = os.lseek(descriptor, 0, os.SEEK_CUR)  # where this process's mark ended, whoever else writes
        os.close(descriptor)
        if kind == kind_to_die == SPACE and number >= int(number_to_die):
            before()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == kind_to_die and number == int(number_to_die):
            before()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in ("write", "flush", "replace"):
            reach(SPACE, before)

    def around(name: str, kind_before: str | None, kind_after: str | None) -> None:
        function = getattr(os, name)

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            here = "dir_fd" not in options and counts_here(path)
            if here and kind_before:
                reach(kind_before)
            result = function(path, *arguments, **options)
            if here and kind_after:
                reach(kind_after)
            return result

        setattr(os, name, call)

    class Stream:
        """A file of which only a part is written where the process dies."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __enter__(self) -> Stream:
            self._inner.__enter__()
            return self

        def __exit__(self, *error: object) -> Any:
            return self._inner.__exit__(*error)

        def __iter__(self) -> Any:
            return iter(self._inner)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def write(self, content: Any) -> Any:
            def write_half() -> None:
                self._inner.write(content[: len(content) // 2])
                self._inner.flush()

            reach("write", write_half)
            return self._inner.write(content)

        def writelines(self, lines: Any) -> None:
            for line in lines:
                self.write(line)

    def open_stream(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        changes = bool(set(mode) & set("wax+")) and counts_here(file)
        new = changes and not isinstance(file, int) and not os.path.exists(file)
        stream = plain_open(file, mode, *arguments, **options)
        if new:
            reach("create")
        return Stream(stream) if changes else stream

    def open_descriptor(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        new = flags & os.O_CREAT and counts_here(path) and not os.path.exists(path)
        descriptor = open_file(path, flags, *arguments, **options)
        if new:
            reach("create")
        return descriptor

    plain_open = io.open
    builtins.open = io.open = open_stream  # type: ignore[assignment]
    os.open = open_descriptor
    around("mkdir", None, "folder")
    around("fsync", "flush", None)
    around("replace", "replace", "replaced")
    around("rename", "replace", "replaced")
    around("unlink", "remove", None)
    around("remove", "remove", None)
    if databases:
        import sqlalchemy as sa

        from securitynet.models.training import checkpoints

        checkpoints._SHARE_OF_TIME = 1e9

        def in_database(connection: Any, *details: Any) -> None:
            statement = details[1] if details else None
            if not counts_here(connection.engine.url.database or ""):
                return
            if statement is None:
                reach("commit")
            elif not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
                reach("statement")

        sa.event.listen(sa.engine.Engine, "commit", in_database)
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", in_database)
