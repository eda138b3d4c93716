"""A folder of results that stays up to date while the server runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from securitynet.results.collection import Collection, collect_results, fingerprint_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PAUSE = 2.0
"""Seconds for which the folder is not looked at again."""


class Results:
    """The results of a folder, read again when a file of it changes.

    Args:
        folder: Holds results.
        keys: The trusted keys by name.
    """

    def __init__(self, folder: Path, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.folder = folder
        self.keys = keys
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._state = ""
        self._collection = Collection((), {}, len(keys))

    def read(self) -> Collection:
        """The results as they are now."""
        with self._lock:
            if time.monotonic() - self._looked >= _PAUSE:
                state = fingerprint_folder(self.folder)
                if state != self._state:
                    self._collection = collect_results(self.folder, self.keys)
                    self._state = state
                self._looked = time.monotonic()
            return self._collection
