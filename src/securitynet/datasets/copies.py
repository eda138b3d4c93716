"""Copies of images: equal ones by their pixels, near ones by a perceptual hash.

The hash of an image is its grey thumbnail of 8×8 without its mean and contrast: 64 numbers of length 1. Another
compression, a slight blur, other sizes and another brightness leave it nearly as it is, while a shift, a crop or
another photo of the same thing do not. Two images count as near copies if the hashes agree to a correlation of 0.99,
and thumbnails of 16×16 to one of 0.93. Of 3,000 different images of CIFAR-10, 99.9% have a correlation below 0.962
with each of 3,000 others; that of an image and its JPEG of quality 30 is above 0.994 in 99% of cases.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffled

HASH_SIDE, CHECK_SIDE = 8, 16
LEAST_CORRELATION, LEAST_CHECKED = 0.99, 0.93

LEAST_CONTRAST = 4.0
"""Standard deviation of grey values below which an image is too plain for its hash to mean anything."""

MOST_PAIRS = 4_000_000_000
"""Pairs that are compared at most; above, near copies are searched for in a random part of the second records."""

_GREY = (0.299, 0.587, 0.114)
_BATCH = 2048
_COMPARED = 1 << 24


@dataclass(frozen=True, eq=False)
class Copies:
    """Which of two lists of records occur in the other list as well.

    Attributes:
        first_exact: Whether each of the M first records has an equal one among the second, M.
        first_near: Whether it has a near copy there and no equal one, M.
        second_exact: The same for the N second records, N.
        second_near: Likewise, N.
        partner: Position among the first records of a copy of each second one, N; -1 where there is none.
        searched: Of how many of the second records near copies were searched for.
    """

    first_exact: NDArray[np.bool_]
    first_near: NDArray[np.bool_]
    second_exact: NDArray[np.bool_]
    second_near: NDArray[np.bool_]
    partner: NDArray[np.int64]
    searched: int

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether each of the first records has a copy of either kind, M."""
        return np.asarray(self.first_exact | self.first_near)

    @property
    def second(self) -> NDArray[np.bool_]:
        """Whether each of the second records has a copy of either kind, N."""
        return np.asarray(self.second_exact | self.second_near)


def find_copies(
    first: tuple[ImageDataset, NDArray[np.int64]], second: tuple[ImageDataset, NDArray[np.int64]]
) -> Copies:
    """Find images that are in both of two lists of records, of one dataset or of two.

    Args:
        first: A dataset with images, and M of its records.
        second: Likewise, N.
    """
    one, other = _hash(*first), _hash(*second)
    places = {digest: at for at, digest in enumerate(one.digests)}
    equal = np.array([places.get(digest, -1) for digest in other.digests], dtype=np.int64)
    second_exact = equal >= 0
    common = set(one.digests) & set(other.digests)
    first_exact = np.array([digest in common for digest in one.digests], dtype=bool)
    first_near, near, searched = _find_near(one, other)
    second_near = (near >= 0) & ~second_exact
    partner = np.where(second_exact, equal, near)
    return Copies(first_exact, first_near & ~first_exact, second_exact, second_near, partner, searched)


@dataclass(frozen=True, eq=False)
class _Hashes:
    """Digests of the pixels, N; hashes, N×64; larger thumbnails of the same kind; whether there is any contrast, N."""

    digests: list[bytes]
    hashes: torch.Tensor
    thumbnails: torch.Tensor
    usable: NDArray[np.bool_]


def _hash(dataset: ImageDataset, records: NDArray[np.int64]) -> _Hashes:
    digests: list[bytes] = []
    hashes, thumbnails, usable = [], [], []
    for _, images in dataset.batches(records, _BATCH):
        digests += [hashlib.blake2b(row, digest_size=16).digest() for row in images.contiguous().flatten(1).numpy()]
        grey = make_grey(images)
        usable.append(grey.flatten(1).std(dim=1, correction=0) >= LEAST_CONTRAST)
        hashes.append(_normalise(grey, HASH_SIDE))
        thumbnails.append(_normalise(grey, CHECK_SIDE).half())
    if not hashes:
        return _Hashes([], torch.empty((0, 1)), torch.empty((0, 1)), np.empty(0, dtype=bool))
    return _Hashes(digests, torch.cat(hashes), torch.cat(thumbnails), torch.cat(usable).numpy())


def make_grey(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N×C×H×W, 1 or 3 channels) as luma (Rec. 601), N×1×H×W float32 in [0, 255]."""
    if images.shape[1] == 1:
        return images.float()
    return (images.float() * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _normalise(grey: torch.Tensor, side: int) -> torch.Tensor:
    """Thumbnails without mean and contrast, N×D, each of length 1."""
    small = functional.adaptive_avg_pool2d(grey, (min(side, grey.shape[2]), min(side, grey.shape[3]))).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    return functional.normalize(centred, dim=1, eps=1e-6)


def _find_near(one: _Hashes, other: _Hashes) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """Which of the M have a near or equal copy among the N; one such of the M for each of the N, or -1.

    Last, of how many of the N they were searched for.
    """
    rows, columns = np.flatnonzero(one.usable), np.flatnonzero(other.usable)
    searched = len(other.digests)
    if len(rows) * len(columns) > MOST_PAIRS:
        columns = np.sort(columns[shuffled(len(columns), "near copies")[: MOST_PAIRS // len(rows)]])
        searched = len(columns)
    near_rows, near_columns = np.zeros(len(one.digests), dtype=bool), np.full(len(other.digests), -1, dtype=np.int64)
    if len(rows) == 0 or len(columns) == 0 or one.hashes.shape[1] != other.hashes.shape[1]:
        return near_rows, near_columns, searched
    hashes = other.hashes[columns].T.contiguous()
    part = max(1, _COMPARED // len(columns))
    for start in range(0, len(rows), part):
        chosen = rows[start : start + part]
        at, to = torch.nonzero(one.hashes[chosen] @ hashes >= LEAST_CORRELATION, as_tuple=True)
        left, right = chosen[at.numpy()], columns[to.numpy()]
        agreement = (one.thumbnails[left].float() * other.thumbnails[right].float()).sum(dim=1).numpy()
        sure = agreement >= LEAST_CHECKED
        near_rows[left[sure]] = True
        near_columns[right[sure]] = left[sure]
    return near_rows, near_columns, searched
