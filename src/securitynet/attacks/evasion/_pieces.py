"""Intermediate results of evasion attacks, stored until the attack is complete, and the oracle that counts queries.

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
import torch
from numpy.typing import NDArray

from securitynet.files import read_with_digest, write_with_digest
from securitynet.models.targets import heads
from securitynet.models.targets.query_count import image_keys
from securitynet.models.targets.target import Target
from securitynet.records import Queries

logger = logging.getLogger(__name__)


class Oracle:
    """Queries the target with the images that an attack generates, and counts the queries.

    Args:
        target: The target; black-box access suffices.
        known: Images that were queried before, N×C×H×W, and do not count as distinct again.
    """

    def __init__(self, target: Target, known: torch.Tensor) -> None:
        self._target = target
        self._total = 0
        self._keys: set[bytes] = set()
        self._known = set(image_keys(known))

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Return the predicted classes of images in [0, 1], N int64 on the CPU."""
        return self._outputs(images).argmax(dim=1) if len(images) else torch.empty(0, dtype=torch.int64)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits up to a constant per row, N×K float32 on the CPU."""
        return heads.to_logits(self._outputs(images), self._target.head)

    @property
    def queries(self) -> Queries:
        """Return the query count so far."""
        return Queries(total=self._total, unique=len(self._keys - self._known))

    def _outputs(self, images: torch.Tensor) -> torch.Tensor:
        outputs = []
        for part in torch.split(images, self._target.batch_size):
            keys = image_keys(part)
            outputs.append(self._target.raw_outputs(part, keys=keys))
            self._total += len(keys) * self._target.backend.repeats
            self._keys.update(keys)
        return torch.cat(outputs)


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
