"""Images that are decoded on access, because all of them would not fit on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.rendering import Rendering, render_image
from securitynet.datasets.source import Indices, Item, Pixels

_STRETCH = 32
"""Images that one thread renders at a time: a task a picture would spend its time in the pool's bookkeeping."""

_SMALL = 4096
"""Bytes of a stored image up to which several threads wait for the interpreter's lock longer than they decode: two of
them took 1.5 to 2 times as long as one with images of 32×32, and 0.5 to 0.7 times as long from 128×128 on."""


class LazyImages:
    """Images of one shape that are read and decoded at each access, without a cache.

    Args:
        pixels: The stored images.
        chosen: The selected images, in order; None for all.
        rendering: How each image is rendered.
    """

    def __init__(self, pixels: Pixels, chosen: Indices | None, rendering: Rendering) -> None:
        self._pixels = pixels
        self._chosen = np.arange(len(pixels), dtype=np.int64) if chosen is None else chosen
        self._rendering = rendering

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return len(self._chosen), *self._rendering.shape

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8, len(indices)×C×H×W.

        Raises:
            DatasetError: If one of them is broken.
        """
        wanted = self._chosen[np.atleast_1d(indices.numpy())]
        with start_workers() as pool:
            return torch.from_numpy(render_all(pool, self._pixels, wanted, self._rendering))


def start_workers() -> ThreadPoolExecutor:
    """Number of decoding threads; Pillow releases the interpreter's lock while it decodes and resizes."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="securitynet-decode")


def render_all(pool: ThreadPoolExecutor, pixels: Pixels, indices: Indices, rendering: Rendering) -> NDArray[np.uint8]:
    """Render the images at ``indices``: uint8, len(indices)×C×H×W.

    Args:
        pool: Threads to use.
        pixels: The stored images.
        indices: The selected images, int64.
        rendering: How each image is rendered.
    """
    items = pixels.fetch(indices)
    images = np.empty((len(items), *rendering.shape), dtype=np.uint8)

    def stretch(start: int) -> None:
        for position in range(start, min(start + _STRETCH, len(items))):
            item: Item = items[position]
            images[position] = render_image(item, pixels.name(int(indices[position])), rendering)

    # Consumed in order, so that the first of several broken images is reported, whichever thread is faster.
    starts = range(0, len(items), _STRETCH)
    for _ in map(stretch, starts) if _are_small(items[:_STRETCH]) else pool.map(stretch, starts):
        continue
    return images


def _are_small(items: Sequence[Item]) -> bool:
    return sum(_count_bytes(item) for item in items) <= _SMALL * len(items)


def _count_bytes(item: Item) -> int:
    if isinstance(item, Path):
        return item.stat().st_size if item.exists() else 0
    return item.nbytes if isinstance(item, np.ndarray) else len(item)


def render_chunks(
    pixels: Pixels, indices: Indices, rendering: Rendering, advance: Callable[[int], None]
) -> Iterator[NDArray[np.uint8]]:
    """Yield all images at ``indices`` in chunks of about 4 MiB, in order.

    Args:
        pixels: The stored images.
        indices: The selected images, int64.
        rendering: How each image is rendered.
        advance: Called with the number of images of each chunk.
    """
    size = int(np.clip((4 << 20) // int(np.prod(rendering.shape)), 16, 1024))
    with start_workers() as pool:
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            yield render_all(pool, pixels, chosen, rendering)
            advance(len(chosen))
