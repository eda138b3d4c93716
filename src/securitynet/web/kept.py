"""Results that are kept for the next one who asks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The results used last, for many threads; what several ask for at once is made once."""

    def __init__(self, most: int) -> None:
        self._items: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._most = most
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under a key; made if it is not there."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                with self._lock:
                    if key in self._items:
                        return self._items[key]
                made = make()
                with self._lock:
                    self._items[key] = made
                    while len(self._items) > self._most:
                        self._items.popitem(last=False)
                return made
        finally:
            with self._lock:
                self._making.pop(key, None)
