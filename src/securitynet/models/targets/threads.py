"""Forward passes on a CPU in lanes: whole batches side by side, each on one thread.

torch divides every operation among the cores and waits for the slowest after each; a small network has many short
operations, and most of the time goes into waiting, all the more when something else runs on the machine. One batch a
thread needs no waiting. And as each batch is computed by one thread, the outputs do not depend on the number of cores.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of glibc's mallopt(3)."""

_here = threading.local()

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


class Lanes:
    """Copies of a network, one a thread. They share the weights; each has module objects of its own.

    So a network that keeps something in its attributes during a forward pass does not get mixed up.

    Args:
        module: The frozen network, on the CPU.
        count: Number of lanes, the threads that torch would use by default.
    """

    def __init__(self, module: nn.Module, count: int | None = None) -> None:
        self.count = count or getattr(_here, "usual", None) or torch.get_num_threads()
        self._copies: queue.SimpleQueue[nn.Module] = queue.SimpleQueue()
        for _ in range(self.count):
            tensors = itertools.chain(module.parameters(), module.buffers())
            shared = {id(tensor): tensor for tensor in tensors}
            self._copies.put(copy.deepcopy(module, shared))

    def map(
        self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], inputs: torch.Tensor, size: int
    ) -> torch.Tensor:
        """``function(network, part)`` for parts of at most ``size`` inputs, joined in order."""
        parts = torch.split(inputs, size)
        return torch.cat(list(thread_pool(self.count).map(lambda part: self._run(function, part), parts)))

    def _run(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], part: torch.Tensor) -> torch.Tensor:
        module = self._copies.get()
        try:
            return function(module, part)
        finally:
            self._copies.put(module)


@contextmanager
def left_to_lanes(device: torch.device) -> Iterator[None]:
    """The cores are for lanes in here: what this thread computes between their calls takes one core.

    It changes nothing where the device is not a CPU. torch's own threads wait for the next operation in a loop, for
    milliseconds, on cores that lanes need: where calls are short, as those of a search for triggers, it took a third of
    the time.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    outer = getattr(_here, "usual", None)
    _here.usual = outer or before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.usual = outer
        torch.set_num_threads(before)


def equal_size(count: int, most: int) -> int:
    """Size of an even number of equal parts of ``count`` inputs, at most ``most`` each; the last may be smaller.

    One part alone, or a small one at the end, would leave cores idle. There are not as many parts as cores, so that
    results do not depend on those.
    """
    parts = 2 * -(-count // (2 * most))
    return max(1, -(-count // parts)) if parts else 1


def thread_pool(count: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core each; one pool a process, as a forked child has none of its parent's."""
    key = (os.getpid(), count)
    with _lock:
        if key not in _pools:
            keep_freed_memory()
            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(count, thread_name_prefix="securitynet-lane")
            started = threading.Barrier(count)

            def start(_: int) -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()  # makes this thread take the number; otherwise its first operation would
                started.wait()

            list(pool.map(start, range(count)))
            torch.set_num_threads(before)  # for this thread and for new ones; those of the pool keep theirs
            _pools[key] = pool
        return _pools[key]


def keep_freed_memory() -> None:
    """Let glibc keep up to 512 MiB a thread of what was freed, for the next batch.

    A pass takes and frees the same tens of MiB again and again. On threads other than the first, glibc hands them back
    to the system after each, which then clears every page anew: a quarter of the time of a small network. Does nothing
    with another C library, or where the user has settings of his own.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in (_MMAP_THRESHOLD, 1 << 25), (_TRIM_THRESHOLD, 1 << 29), (_TOP_PAD, 1 << 26):
        mallopt(option, value)
