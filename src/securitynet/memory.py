"""How much freed memory glibc holds back: a setting of the whole process, so only our own processes change it."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's mallopt(3)."""


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
