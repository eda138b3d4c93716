"""Intermediate results of evasion attacks, stored until the attack is complete.

A piece is one file: a digest followed by an ``.npz``. It is written atomically, so an interrupted run resumes with the
first missing piece; a piece whose digest does not match is computed again.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.files import read_with_digest, write_with_digest

logger = logging.getLogger(__name__)


class PieceStore:
    """Named sets of arrays in a folder.

    Args:
        folder: Folder, whose name is a digest of everything that determines the arrays; None stores nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a piece, or None if it is absent or damaged; damage is logged."""
        if self._folder is None:
            return None
        path = self._folder / f"{name}.piece"
        try:
            payload = read_with_digest(path)
        except FileNotFoundError:
            return None
        if payload is None:
            logger.warning("A stored piece of an evasion attack is damaged and is computed again: %s", path.name)
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return dict(arrays)

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the arrays of a piece."""
        if self._folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(arrays))
        write_with_digest(self._folder / f"{name}.piece", buffer.getvalue())

    def remove(self) -> None:
        """Delete all pieces after the attack is complete."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
