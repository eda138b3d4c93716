"""Long examinations of images in pieces that survive a kill, with progress over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._queries import Arrays, QueryClient, joined
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.threads import leave_cores_to_threads


class PartsProgress:
    """Progress over several parts of one piece of work."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._before, self._now = progress, total, 0, 0

    def part(self) -> Progress:
        """Progress of the next part."""
        self._before = self._now

        def report_progress(done: int, _total: int) -> None:
            self._now = self._before + done
            if self._progress:
                self._progress(self._now, self._total)

        return report_progress


Examine = Callable[[torch.Tensor, NDArray[np.int64]], Arrays]
"""Images N×C×H×W uint8 and their numbers N in; arrays of one row an image out."""


def in_pieces(
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
    """What is found out about many images, in pieces that are kept on disk as they are finished.

    Args:
        examine: Finds it out.
        images: N×C×H×W uint8.
        name: Of the pieces.
        client: The one that ``examine`` queries.
        folder: For the pieces; None keeps nothing.
        progress: Called with the numbers of images done and of all images.
        size: Images a piece.
        rows: Numbers of the images, N; from 0 on if None.
    """
    numbers = np.arange(len(images), dtype=np.int64) if rows is None else rows
    pieces = []
    for start, part in split_images(images, size):
        chosen = numbers[start : start + size]
        path = None if folder is None else folder / f"{name} {start:06d}.npz"
        with leave_cores_to_threads(client.target.backend.device):
            pieces.append(client.piece(path, lambda part=part, chosen=chosen: examine(part, chosen)))  # type: ignore[misc]
        progress(start + len(part), len(images))
    return joined(pieces)


def split_images(images: torch.Tensor, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Consecutive parts of at most ``size`` images, each after the number of its first image."""
    for start in range(0, len(images), size):
        yield start, images[start : start + size]
