"""A cache of results for many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ResultCache(Generic[T]):
    """The results used last. What several threads ask for at once is computed once, and the others wait for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._computing: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result under a key; computed if it is not there."""
        with self._lock:
            own_lock = self._computing.setdefault(key, threading.Lock())
        with own_lock:
            with self._lock:
                if key in self._results:
                    self._results.move_to_end(key)
                    self._computing.pop(key, None)
                    return self._results[key]
            try:
                result = compute()
                with self._lock:
                    self._results[key] = result
                    while len(self._results) > self._size:
                        self._results.popitem(last=False)
                return result
            finally:
                with self._lock:
                    self._computing.pop(key, None)
