"""Pieces of work: some images at a time, each kept until all are done; and a bill of the questions asked.

A piece is one file: a digest, then an ``.npz``. It is written whole or not at all, so a killed run goes on with the
piece it was at; one whose digest does not match is made again.
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
    """Asks the target about images that an attack makes up, and counts.

    Args:
        target: Black-box access is enough.
        known: Images that are on the bill already, N×C×H×W: they are not distinct from those asked before.
    """

    def __init__(self, target: Target, known: torch.Tensor) -> None:
        self._target = target
        self._total = 0
        self._keys: set[bytes] = set()
        self._known = set(image_keys(known))

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Predicted classes of images in [0, 1], N int64 on the CPU."""
        return self._outputs(images).argmax(dim=1) if len(images) else torch.empty(0, dtype=torch.int64)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits up to a constant per row, N×K float32 on the CPU."""
        return heads.to_logits(self._outputs(images), self._target.head)

    @property
    def queries(self) -> Queries:
        """What was asked so far."""
        return Queries(total=self._total, unique=len(self._keys - self._known))

    def _outputs(self, images: torch.Tensor) -> torch.Tensor:
        answers = []
        for part in torch.split(images, self._target.batch_size):
            keys = image_keys(part)
            answers.append(self._target.raw_outputs(part, keys=keys))
            self._total += len(keys)
            self._keys.update(keys)
        return torch.cat(answers)


class PieceStore:
    """Arrays by name, in a folder.

    Args:
        folder: Whose name says what decides the arrays; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a piece, or None if it is absent or damaged (which is logged)."""
        if self._folder is None:
            return None
        path = self._folder / f"{name}.piece"
        try:
            payload = read_with_digest(path)
        except FileNotFoundError:
            return None
        if payload is None:
            logger.warning("A piece of an evasion attack is damaged and is made again: %s", path.name)
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return dict(arrays)

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the arrays of a piece."""
        if self._folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(arrays))
        write_with_digest(self._folder / f"{name}.piece", buffer.getvalue())

    def remove(self) -> None:
        """Delete all pieces: what they were kept for is done."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
