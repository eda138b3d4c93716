"""A first run of a model's file in a process of its own, whose time and memory are limited.

A few bytes of a graph can ask for an endless loop or for a tensor of terabytes, and a damaged one can end the
interpreter that opens it. A file that could do so is opened and run once where that does no harm.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from securitynet.errors import RefusedFile
from securitynet.untrusted import bound_growth, describe_size

SECONDS = 20
"""Time limit of a first run."""

_OUT_OF_MEMORY = 3
_ASIDE = 1 << 28
"""Address space that libraries reserve for their threads."""
_SHORT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "can't allocate",
                    "not enough memory", "cannot allocate")  # fmt: skip


def run_once(module: str, path: Path, reference: str, *arguments: str) -> None:
    """Open a file and run it on one image in another process.

    Other errors than those below are left to the caller, who opens the file again.

    Args:
        module: The module that does so when it is run with the file's path and the limit of memory (`limit_run`).
        path: The file.
        reference: Reference of the model, for messages.
        arguments: Further arguments for the module.

    Raises:
        RefusedFile: If the run does not end in time, needs too much memory, or crashes.
    """
    limit = limit_run_memory(path)
    command = [sys.executable, "-m", module, str(path.absolute()), str(limit), *arguments]
    try:
        done = subprocess.run(command, timeout=SECONDS, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise RefusedFile(
            f"{reference} does not return an output for one image within {SECONDS} seconds: a loop in its graph may "
            "never end.",
            hint="Export the network without loops.",
        ) from None
    if done.returncode == _OUT_OF_MEMORY:
        raise RefusedFile(
            f"{reference} needs more than {describe_size(limit)} of memory for one image: it is not run.",
            hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
        )
    if done.returncode < 0:
        raise RefusedFile(
            f"{reference} crashes the library that runs it (signal {-done.returncode}): it is damaged or hostile.",
            hint="Compare its size or checksum with its source's, and fetch it again.",
        )


def limit_run_memory(path: Path) -> int:
    """The most memory in bytes that a model's file may take for one image."""
    return (1 << 28) + bound_growth(path.stat().st_size)


def limit_run(run: Callable[[str], None]) -> int:
    """In the process of a first run: call ``run`` with the file's path, within the limit of memory; the exit code.

    What it needs should have been imported before, for libraries reserve memory for each core of the machine.
    """
    try:
        with limit_memory(int(sys.argv[2])):
            run(sys.argv[1])
    except Exception as error:
        return _OUT_OF_MEMORY if is_short_of_memory(error) else 1
    return 0


@contextlib.contextmanager
def limit_memory(size: int) -> Iterator[None]:
    """Within the block, this process may take so many bytes more than it has, where the system knows such limits."""
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before, most = resource.getrlimit(resource.RLIMIT_AS)
        if before == resource.RLIM_INFINITY or before > held + size:
            resource.setrlimit(resource.RLIMIT_AS, (held + size, most))
    except (ImportError, OSError, ValueError):  # Windows and macOS
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


@contextlib.contextmanager
def limit_growth(path: Path, what: str) -> Iterator[None]:
    """Within the block, in which a library reads a file of data, the file may not grow beyond its limit.

    Args:
        path: The file.
        what: What is read of it, for the message.

    Raises:
        RefusedFile: If it does.
    """
    packed = path.stat().st_size
    try:
        with limit_memory(_ASIDE + bound_growth(packed)):
            yield
    except Exception as error:
        if not is_short_of_memory(error):
            raise
        raise RefusedFile(
            f"{path} has {describe_size(packed)}, and {what} would take more than "
            f"{describe_size(bound_growth(packed))} of memory: it is not read.",
            hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
        ) from error


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory; the libraries have no common type for that."""
    words = f"{error} {error.__cause__}".lower()
    return isinstance(error, MemoryError) or any(part in words for part in _SHORT_OF_MEMORY)
