"""Forward passes on a CPU with one thread per batch: whole batches run in parallel.

torch splits every operation across the cores and then waits for the slowest one. A small network has many short
operations, so most of the time is spent waiting, especially on a busy machine. One thread per batch avoids the waiting.
Because each batch is computed by a single thread, the outputs do not depend on the number of cores.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

from securitynet.models.targets.optimise import copy_network

_here = threading.local()

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


class NetworkThreads:
    """Runs a network on several threads, each with its own copy of the modules; the copies share the weights.

    A network that stores values in its attributes during a forward pass is therefore safe to run in parallel. A single
    thread needs no copy, which takes as long as several passes of a small network.

    Args:
        module: The frozen network, on the CPU.
        count: Number of threads; by default as many as torch uses.

    Raises:
        ValueError: If the network cannot be copied for several threads.
    """

    def __init__(self, module: nn.Module, count: int | None = None) -> None:
        self.count = count or getattr(_here, "usual", None) or torch.get_num_threads()
        self._copies: queue.SimpleQueue[nn.Module] = queue.SimpleQueue()
        for _ in range(self.count):
            network = module if self.count == 1 else copy_network(module, sharing=True)
            if network is None:
                raise ValueError("a network that cannot be copied cannot run on several threads")
            self._copies.put(network)

    def map(
        self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], inputs: torch.Tensor, size: int
    ) -> torch.Tensor:
        """Apply ``function(network, part)`` to parts of at most ``size`` inputs; the results are joined in order.

        Args:
            function: Takes a copy of the network and a part of the inputs; returns one row per input.
            inputs: N rows.
            size: Largest number of inputs in one part.
        """
        parts = torch.split(inputs, size)
        if self.count == torch.get_num_threads() == 1:
            # The only thread would compute the same, and each part would wait for two changes of threads.
            with torch.inference_mode(False):
                results = [self._run(function, part) for part in parts]
            return torch.cat(results)
        return torch.cat(list(share_thread_pool(self.count).map(lambda part: self._run(function, part), parts)))

    def _run(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], part: torch.Tensor) -> torch.Tensor:
        module = self._copies.get()
        try:
            return function(module, part)
        finally:
            self._copies.put(module)


def make_network_threads(module: nn.Module, device: torch.device) -> NetworkThreads | None:
    """Threads for a network on a CPU; None on other devices, or if the network cannot be copied."""
    if device.type != "cpu":
        return None
    try:
        return NetworkThreads(module)
    except ValueError:
        return None


@contextmanager
def leave_cores_to_threads(device: torch.device) -> Iterator[None]:
    """Leave the cores to `NetworkThreads` in this block: the calling thread itself computes on one core.

    On devices other than a CPU this does nothing. torch's own threads spin for milliseconds while they wait for the
    next operation, on cores that `NetworkThreads` need. With short calls, such as those of a search for triggers, this
    took a third of the time.
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


def compute_equal_size(count: int, most: int) -> int:
    """Size of the parts when ``count`` inputs are split into an even number of nearly equal parts of at most ``most``.

    A single part, or a small one at the end, would leave cores idle. The number of parts does not follow the number of
    cores, so that results do not depend on the machine.
    """
    parts = 2 * -(-count // (2 * most))
    return max(1, -(-count // parts)) if parts else 1


def share_thread_pool(count: int) -> ThreadPoolExecutor:
    """A pool of threads on each of which torch uses one core. One pool per process: a forked child has no threads."""
    key = (os.getpid(), count)
    with _lock:
        if key not in _pools:
            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(count, thread_name_prefix="securitynet")
            started = threading.Barrier(count)

            def start(_: int) -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()  # applies the setting to this thread now; otherwise its first operation would
                started.wait()

            list(pool.map(start, range(count)))
            torch.set_num_threads(before)  # for this thread and for new ones; those of the pool keep theirs
            _pools[key] = pool
        return _pools[key]
