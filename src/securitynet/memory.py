"""How much freed memory the C library keeps: a setting of the whole process, so only processes of our own change it."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's mallopt(3)."""


def keep_freed_memory() -> None:
    """Let glibc keep up to 512 MiB a thread of what was freed, for the next batch.

    A pass takes and frees the same tens of MiB again and again. On threads other than the first, glibc hands them back
    to the system after each, which then clears every page anew: a quarter of the time of a small network. Does nothing
    with another C library, or where the user has settings of their own.

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
