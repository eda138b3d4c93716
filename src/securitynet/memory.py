"""How much memory there is, how much freed memory glibc holds back, and when Python looks for garbage."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's mallopt(3)."""

_LIMIT_FILES = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),)


def keep_freed_memory() -> None:
    """Let glibc hold back up to 512 MiB of freed memory per thread for the next batch.

    Each pass allocates and frees the same tens of MiB. On all threads but the first, glibc returns them to the system
    after each pass, and the system clears every page again: a quarter of the running time of a small network. Does
    nothing with another C library, or where the user has set glibc's options.

    Only for processes that the command line starts: a library must not change this in the process of whoever imports
    it.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in (_MMAP_THRESHOLD, 1 << 25), (_TRIM_THRESHOLD, 1 << 29), (_TOP_PAD, 1 << 26):
        mallopt(option, value)


def release_freed_memory() -> None:
    """Let glibc return what was freed to the system: many small values, which a table has replaced, leave holes.

    Does nothing with another C library.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Within the block, cyclic garbage stays: looking for it among ever more new objects takes more and more time.

    What is in no cycles, as records, rows and columns are, is freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_available_memory() -> int | None:
    """Bytes that this process can still take without swapping, or None where the system does not say.

    It is the smaller of what the machine has and what a container's limit leaves.
    """
    known = []
    try:
        known.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):  # counts caches that can be dropped, unlike the pages above
                known = [1024 * int(line.split()[1])]
    except (AttributeError, OSError, ValueError):
        pass
    for limit, used in _LIMIT_FILES:
        try:
            known.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
        except (OSError, ValueError):  # no container, or no limit ("max")
            continue
    return min(known, default=None)
