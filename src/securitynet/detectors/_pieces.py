"""Long computations on images in resumable pieces, with overall progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._queries import Arrays, QueryClient, concatenate_pieces
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.threads import leave_cores_to_threads


class PartsProgress:
    """Reports the progress of several parts of a computation as one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._before, self._now = progress, total, 0, 0

    def part(self) -> Progress:
        """Return the progress callback of the next part."""
        self._before = self._now

        def report_progress(done: int, _total: int) -> None:
            self._now = self._before + done
            if self._progress:
                self._progress(self._now, self._total)

        return report_progress


Examine = Callable[[torch.Tensor, NDArray[np.int64]], Arrays]
"""Maps images, N×C×H×W uint8, and their numbers, N, to arrays with one row per image."""


def examine_in_pieces(
    examine: Examine,
    images: torch.Tensor,
    name: str,
    client: QueryClient,
    folder: Path | None,
    progress: Progress,
    *,
    size: int = 64,
    rows: NDArray[np.int64] | None = None,
) -> Arrays:
    """Examine many images in pieces that are stored on disk when complete.

    Args:
        examine: Computes the arrays of one piece.
        images: Images, N×C×H×W uint8.
        name: Name of the pieces.
        client: The client that ``examine`` queries.
        folder: Folder of the pieces; None stores nothing.
        progress: Called with the number of images done and the total.
        size: Number of images per piece.
        rows: Numbers of the images, N; 0, 1, 2, … if None.
    """
    numbers = np.arange(len(images), dtype=np.int64) if rows is None else rows
    pieces = []
    for start, part in split_images(images, size):
        chosen = numbers[start : start + size]
        path = None if folder is None else folder / f"{name} {start:06d}.npz"
        with leave_cores_to_threads(client.target.backend.device):
            pieces.append(client.piece(path, lambda part=part, chosen=chosen: examine(part, chosen)))  # type: ignore[misc]
        progress(start + len(part), len(images))
    return concatenate_pieces(pieces)


def split_images(images: torch.Tensor, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield consecutive parts of at most ``size`` images, each with the number of its first image."""
    for start in range(0, len(images), size):
        yield start, images[start : start + size]
