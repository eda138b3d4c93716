"""Processes that read the files of a large study at once, for the index that one process writes.

Each is this module run as a program: it gets lists of paths on its standard input, and answers with their rows. They
are processes of our own program only, so that what they say is trusted. Those of ``multiprocessing`` would first run
the caller's main module again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from securitynet.memory import pause_garbage_collection
from securitynet.results.file_rows import FileRows, read_rows
from securitynet.results.root import FolderRoot, Root

FEWEST_FILES = 5000
"""Files from which on processes take less time than they take to start."""

_MOST_PROCESSES = 4


def read_row_parts(root: Root, name: str, parts: Sequence[Sequence[str]]) -> Iterator[FileRows]:
    """The rows of each part of the files, in their order.

    Args:
        root: Where the files are; those of a local folder are read by several processes if they are many.
        name: Name of the root in the rows.
        parts: Lists of paths below the root.
    """
    count = min(_MOST_PROCESSES, len(parts), _count_processors())
    if root.folder is None or count < 2 or sum(map(len, parts)) < FEWEST_FILES:
        for part in parts:
            yield read_rows(root, name, part)
        return
    folder = root.folder
    with contextlib.ExitStack() as stack:
        free: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        for _ in range(count):
            free.put(stack.enter_context(_start(folder, name)))
        threads = stack.enter_context(ThreadPoolExecutor(count))

        def read(part: Sequence[str]) -> FileRows:
            process = free.get()
            try:
                return read_rows(root, name, part) if process is None else _ask(process, part)
            except (OSError, EOFError):  # it was killed: the rest is read here
                process = None
                return read_rows(root, name, part)
            finally:
                free.put(process)

        waiting: deque[Future[FileRows]] = deque()
        for part in parts:
            waiting.append(threads.submit(read, part))
            if len(waiting) > 2 * count:  # rows that wait take memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _start(folder: Path, name: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process that reads the files of a folder, and ends with the block; None if none can be started."""
    path = os.pathsep.join(filter(None, sys.path))  # so that it finds what this process found
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "securitynet.results.file_readers", str(folder.absolute()), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
    except OSError:
        yield None
        return
    try:
        yield process
    finally:
        process.kill()
        with contextlib.suppress(OSError):  # of a process that has ended, a full pipe cannot be flushed
            process.communicate()


def _ask(process: subprocess.Popen[bytes], part: Sequence[str]) -> FileRows:
    assert process.stdin is not None and process.stdout is not None
    _send(process.stdin, list(part))
    return FileRows(*_receive(process.stdout))


def _send(stream: IO[bytes], value: Any) -> None:
    content = marshal.dumps(value)
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """What was sent to a stream. Raises ``EOFError`` if it has ended."""
    size = stream.read(8)
    content = stream.read(int.from_bytes(size, "big"))
    if len(size) < 8 or len(content) < int.from_bytes(size, "big"):
        raise EOFError
    return marshal.loads(content)


def _count_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(folder: str, name: str) -> None:
    root = FolderRoot(Path(folder))
    with pause_garbage_collection(), contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _send(sys.stdout.buffer, tuple(read_rows(root, name, _receive(sys.stdin.buffer))))


if __name__ == "__main__":
    _run(*sys.argv[1:])
