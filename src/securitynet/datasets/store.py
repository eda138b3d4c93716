"""Decoded images in an ``.npy`` file, which is used only if it is complete.

An entry is a folder with ``images.npy`` and ``index.json``, which holds the CRC-32 of each chunk of images. All chunks
are checked at every opening (0.02 to 0.04 s for CIFAR-10), so a damaged or truncated file is built again. Small files
are mapped into memory; of large ones, only the images of a batch are ever in memory.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Images
from securitynet.datasets.locks import hold_file_lock
from securitynet.errors import DatasetError
from securitynet.files import write_atomically, write_json
from securitynet.untrusted import read_stored

FORMAT = 1
"""Version of the layout of an entry, and of what rendering makes of an image. Raise it when either changes."""

MAPPED_BYTES = 1 << 30
"""Images that take more than this are read from the file when they are fetched; mapped, all pages that were ever read
would count as this process's memory."""

logger = logging.getLogger(__name__)


class StoredImages:
    """Images in an ``.npy`` file that are read when they are fetched.

    Args:
        path: The file.
        offset: Bytes before the first image.
        shape: (N, C, H, W).
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int, int]) -> None:
        self._path = path
        self._offset = offset
        self._size = math.prod(shape[1:])
        self.shape: tuple[int, ...] = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8, len(indices)×C×H×W.

        Raises:
            DatasetError: If the file has been changed or removed since it was checked.
        """
        rows = np.arange(len(self))[np.atleast_1d(indices.numpy())]
        images = np.empty((len(rows), self._size), dtype=np.uint8)
        try:
            with self._path.open("rb", buffering=0) as stream:
                for image, row in zip(images, rows.tolist(), strict=True):
                    stream.seek(self._offset + row * self._size)
                    if stream.readinto(image.data) != self._size:
                        raise OSError("it is too short")
        except OSError as error:
            raise DatasetError(f"The cached images in {self._path} cannot be read: {error}.") from error
        return torch.from_numpy(images.reshape(len(rows), *self.shape[1:]))


def load_or_build(
    folder: Path, shape: tuple[int, int, int, int], chunks: Callable[[], Iterator[NDArray[np.uint8]]]
) -> Images:
    """Open the images of an entry, building the entry first if it is absent or damaged.

    Args:
        folder: The entry, whose name includes everything that determines its content.
        shape: Required (N, C, H, W) of the images.
        chunks: Yields the images in order, uint8, in chunks of any length.

    Returns:
        uint8, N×C×H×W: up to `MAPPED_BYTES` a tensor that is mapped into memory (writing to it changes this process's
        pages and never the file), else `StoredImages`.

    Raises:
        DatasetError: If the cache folder cannot be written to.
    """
    images = _open(folder, shape)
    if images is None:
        try:
            with hold_file_lock(folder / "lock") as alone:
                # After waiting for another process, the entry may be complete.
                images = _open(folder, shape)
                if images is None:
                    if alone:
                        _sweep(folder)
                    _build(folder, shape, chunks())
                    images = _open(folder, shape)
        except OSError as error:
            raise explain_unwritable_cache(folder, error) from error
    if images is None:
        raise DatasetError(
            f"The cache entry {folder} does not read back as it was written.",
            hint="Check the disk, or set SECURITYNET_CACHE to another folder.",
        )
    return images


def explain_unwritable_cache(folder: Path, error: OSError) -> DatasetError:
    """Make the error for a cache folder that cannot be written to."""
    return DatasetError(
        f"The cache folder {folder} cannot be written to: {error.strerror or error}.",
        hint="Free some space there, or set SECURITYNET_CACHE to another folder.",
    )


def _open(folder: Path, shape: tuple[int, int, int, int]) -> Images | None:
    """The images if the entry is complete, else None."""
    path = folder / "images.npy"
    try:
        index = json.loads(read_stored(folder / "index.json"))
        if index["format"] != FORMAT or tuple(index["shape"]) != shape or path.stat().st_size != index["bytes"]:
            raise ValueError("its index does not fit")
        if not path.is_file():  # a pipe, whose size is 0, which the index may state
            raise ValueError("its images are no file")
        with path.open("rb") as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("its header does not fit")
            header = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
        if header != (shape, False, np.dtype(np.uint8)):
            raise ValueError("its header does not fit")
        _check(path, offset, shape, index["chunks"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.warning("The cached images in %s are damaged (%s); they are made again.", folder, error)
        return None
    if math.prod(shape) > MAPPED_BYTES:
        return StoredImages(path, offset, shape)
    # Copy-on-write: torch requires writable memory, and the file must not change.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _check(path: Path, offset: int, shape: tuple[int, int, int, int], chunks: list[list[int]]) -> None:
    """Compare all chunks with their checksums, through the file: pages of a map would stay in memory."""
    bounds = [0, *itertools.accumulate(length for length, _ in chunks)]
    if bounds[-1] != shape[0]:
        raise ValueError("its index does not fit")
    size = math.prod(shape[1:])

    def read(stretch: tuple[int, int]) -> int:
        with path.open("rb") as stream:
            stream.seek(offset + stretch[0] * size)
            return zlib.crc32(stream.read((stretch[1] - stretch[0]) * size))

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        checksums = list(pool.map(read, itertools.pairwise(bounds)))
    if checksums != [crc for _, crc in chunks]:
        raise ValueError("a checksum differs")


def _build(folder: Path, shape: tuple[int, int, int, int], chunks: Iterator[NDArray[np.uint8]]) -> None:
    index: list[list[int]] = []
    # Written in sequence: with a memory map, a full disk kills the process instead of raising an error.
    with write_atomically(folder / "images.npy") as stream:
        header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in chunks:
            block = np.ascontiguousarray(chunk).data
            stream.write(block)
            index.append([len(block), zlib.crc32(block)])
        size = stream.tell()
    write_json(folder / "index.json", {"format": FORMAT, "shape": list(shape), "bytes": size, "chunks": index})


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind; safe only under the lock."""
    for leftover in folder.glob(".images.npy.*.tmp"):
        leftover.unlink(missing_ok=True)
