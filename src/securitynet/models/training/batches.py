"""Batches of images on the device: all images are moved there at once if they fit, else fetched one batch ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Images

RESIDENT_BYTES = 2 << 30
"""Largest size of decoded images that are stored in main memory, 2 GiB."""


class Feed:
    """Provides selected images in any requested order.

    Args:
        images: N×C×H×W, a tensor (uint8, or floating point in [0, 1]) or any other `Images`.
        indices: The selected images, M int64; later positions refer to them. None for all.
        device: Device of the batches.
    """

    def __init__(self, images: Images, indices: NDArray[np.int64] | None, device: torch.device) -> None:
        count = int(images.shape[0])
        self._indices = torch.arange(count) if indices is None else torch.as_tensor(indices, dtype=torch.int64)
        self._device = device
        self._images = images
        self._resident: torch.Tensor | None = None
        size = len(self) * int(np.prod(images.shape[1:]))
        if isinstance(images, torch.Tensor):
            size *= images.element_size()
            # A tensor on the right device (in memory or memory-mapped) needs no copy at all.
            if images.device != device and size <= _room(device):
                self._resident = _gather(images, self._indices.to(images.device), device)
        elif size <= _room(device):
            self._resident = _gather(images, self._indices, device)

    def __len__(self) -> int:
        return len(self._indices)

    def fetch(self, positions: torch.Tensor) -> torch.Tensor:
        """The images at ``positions`` (int64 on the CPU, each in [0, M)), on the device."""
        if not len(positions):
            return self.fetch(torch.zeros(1, dtype=torch.int64))[:0]  # with the shape and type of the others
        if self._resident is not None:
            return self._resident[positions.to(self._device)]
        indices = self._indices[positions]
        if isinstance(self._images, torch.Tensor):
            indices = indices.to(self._images.device)
        return self._images[indices].to(self._device)

    def batches(self, groups: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (positions, images) for each group of positions.

        Images that must be decoded are fetched one batch ahead, while the network processes the batch before.
        """
        if self._resident is not None or isinstance(self._images, torch.Tensor):
            for positions in groups:
                yield positions, self.fetch(positions)
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = None
            for positions in groups:
                following = positions, pool.submit(self.fetch, positions)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0], waiting[1].result()


def _gather(images: Images, indices: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move the images at ``indices`` to the device piece by piece, so that no second copy fills the main memory."""
    pieces = torch.split(indices, 1024)
    first = images[pieces[0]]
    gathered = torch.empty((len(indices), *first.shape[1:]), dtype=first.dtype, device=device)
    start = 0
    for piece in pieces:
        gathered[start : start + len(piece)] = (first if start == 0 else images[piece]).to(device)
        start += len(piece)
    return gathered


def split_batches(count: int, size: int, order: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Split positions into batches of ``size``; a single remaining record joins the batch before it.

    A batch of one record would make batch norms fail (or learn from one image), and dropping it would train on fewer
    records than the split states.

    Args:
        count: Number of records.
        size: Batch size.
        order: Permutation of ``count`` positions; in sequence if None.
    """
    order = torch.arange(count) if order is None else order
    batches = list(torch.split(order, size))
    if size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _room(device: torch.device) -> int:
    """Bytes of images that may be stored on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) // 2  # the rest is left to the network and its activations
    return RESIDENT_BYTES
