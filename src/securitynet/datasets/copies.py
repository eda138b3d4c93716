"""Copies of images: equal ones by their pixels, near ones by a perceptual hash.

The hash of an image is its grey thumbnail of 8×8 without its mean and contrast: 64 numbers of length 1. Another
compression, a slight blur, other sizes and another brightness leave it nearly as it is, while a shift or another photo
of the same thing do not. Two images count as near copies if the hashes agree to a correlation of 0.99, and thumbnails
of 16×16 to one of 0.93; or if that is true of one image and the mirror image of the other, or its centre, the seven
eighths of the sides that the usual preprocessing cuts out. Of 3,000 different images of CIFAR-10, 99.9% have a
correlation below 0.962 with each of 3,000 others; that of an image and its JPEG of quality 30 is above 0.994 in 99% of
cases.

Images of 32×32 or more, whose centres agree less than copies do, are also compared with one of them shifted, by up to a
sixteenth of the side in each direction, or mirrored and shifted.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle

HASH_SIDE, CHECK_SIDE = 8, 16
LEAST_CORRELATION, LEAST_CHECKED = 0.99, 0.93

LEAST_CONTRAST = 4.0
"""Standard deviation of grey values below which an image is too plain for its hash to mean anything."""

MOST_PAIRS = 12_000_000_000
"""Comparisons at most; above, near copies are searched for in a random part of the second records."""

MARGIN = 1 / 16
"""Share of the side that is cut off on each side for the centre of an image: seven eighths are left."""

SHIFT_SIDE, FARTHEST_SHIFT = 32, 2
"""Shifts are tried on images reduced to 32×32, by up to 2 of these pixels."""

LEAST_ALIKE, LEAST_SHIFTED = 0.6, 0.993
"""Correlation of the centres' hashes from which on shifts are tried, and of the larger thumbnails of shifted copies."""

MOST_ALIKE = 100
"""Records for which shifts are tried with a given one, at most: those whose hashes agree most."""

_FORMS = 8
"""Comparisons of each pair: the images, the centre of either or of both, and all that with one of them mirrored."""

_GREY = (0.299, 0.587, 0.114)
_BATCH = 2048
_COMPARED = 1 << 24
_PART = 1024
_SHIFTED = 256
_SHIFTS = tuple(itertools.product(range(2 * FARTHEST_SHIFT + 1), repeat=2))
"""Where a shifted part begins in an image reduced to 32×32: pixels down, pixels across."""


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
class _Thumbnails:
    """Hashes, N×64, and larger thumbnails of the same kind, N×256 (fewer numbers if the images are smaller)."""

    hashes: torch.Tensor
    checks: torch.Tensor
    shape: tuple[int, int]

    def mirror(self) -> _Thumbnails:
        """Those of the mirror images: the average over cells of equal size mirrors with the image."""
        height, width = self.shape
        small = (min(HASH_SIDE, height), min(HASH_SIDE, width))
        large = (min(CHECK_SIDE, height), min(CHECK_SIDE, width))
        hashes, checks = (
            values.reshape(len(values), *sides).flip(2).flatten(1)
            for values, sides in ((self.hashes, small), (self.checks, large))
        )
        return _Thumbnails(hashes, checks, self.shape)


@dataclass(frozen=True, eq=False)
class _Hashes:
    """What images are compared by.

    Attributes:
        digests: Of the pixels, N.
        whole: Thumbnails of the images; None without images.
        centre: Of their centres; None where no pixel is cut off.
        reduced: Their grey values at 32×32, N×1×32×32 uint8; None if they are smaller.
        usable: Whether there is any contrast, N.
    """

    digests: list[bytes]
    whole: _Thumbnails | None
    centre: _Thumbnails | None
    reduced: torch.Tensor | None
    usable: NDArray[np.bool_]


def _hash(dataset: ImageDataset, records: NDArray[np.int64]) -> _Hashes:
    digests: list[bytes] = []
    usable, reduced = [], []
    parts: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = [([], []), ([], [])]
    shape = (0, 0)
    for _, images in dataset.batches(records, _BATCH):
        digests += [hashlib.blake2b(row, digest_size=16).digest() for row in images.contiguous().flatten(1).numpy()]
        grey = make_grey(images)
        usable.append(grey.flatten(1).std(dim=1, correction=0) >= LEAST_CONTRAST)
        shape = (grey.shape[2], grey.shape[3])
        if min(shape) >= SHIFT_SIDE:
            reduced.append(functional.adaptive_avg_pool2d(grey, SHIFT_SIDE).round().to(torch.uint8))
        for (hashes, checks), seen in zip(parts, (grey, _cut_centre(grey)), strict=True):
            hashes.append(_normalise(seen, HASH_SIDE))
            checks.append(_normalise(seen, CHECK_SIDE).half())
    if not digests:
        return _Hashes([], None, None, None, np.empty(0, dtype=bool))
    whole, centre = (_Thumbnails(torch.cat(hashes), torch.cat(checks), shape) for hashes, checks in parts)
    return _Hashes(
        digests,
        whole,
        centre if min(_get_margins(shape)) > 0 else None,
        torch.cat(reduced) if reduced else None,
        torch.cat(usable).numpy(),
    )


def _get_margins(shape: tuple[int, int]) -> tuple[int, int]:
    return round(shape[0] * MARGIN), round(shape[1] * MARGIN)


def _cut_centre(grey: torch.Tensor) -> torch.Tensor:
    """The centre of each image, as large as the whole."""
    height, width = grey.shape[2:]
    down, right = _get_margins((height, width))
    centre = grey[:, :, down : height - down, right : width - right]
    return functional.interpolate(centre, size=(height, width), mode="bilinear", align_corners=False)


def make_grey(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N×C×H×W, 1 or 3 channels) as luma (Rec. 601), N×1×H×W float32 in [0, 255]."""
    if images.shape[1] == 1:
        return images.float()
    grey = images[:, :1].float().mul_(_GREY[0])
    for channel in (1, 2):  # without a float copy of all three
        grey.add_(images[:, channel : channel + 1], alpha=_GREY[channel])
    return grey


def _normalise(grey: torch.Tensor, side: int) -> torch.Tensor:
    """Thumbnails without mean and contrast, N×D, each of length 1."""
    small = functional.adaptive_avg_pool2d(grey, (min(side, grey.shape[2]), min(side, grey.shape[3])))
    return _standardise(small.flatten(1))


def _standardise(values: torch.Tensor) -> torch.Tensor:
    """Vectors (...×D) without their mean, each of length 1."""
    return functional.normalize(values - values.mean(dim=-1, keepdim=True), dim=-1, eps=1e-6)


def _find_near(one: _Hashes, other: _Hashes) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """Which of the M have a near or equal copy among the N; one such of the M for each of the N, or -1.

    Last, of how many of the N they were searched for.
    """
    rows, columns = np.flatnonzero(one.usable), np.flatnonzero(other.usable)
    searched = len(other.digests)
    if len(rows) * len(columns) * _FORMS > MOST_PAIRS:
        columns = np.sort(columns[shuffle(len(columns), "near copies")[: MOST_PAIRS // _FORMS // len(rows)]])
        searched = len(columns)
    near_rows, near_columns = np.zeros(len(one.digests), dtype=bool), np.full(len(other.digests), -1, dtype=np.int64)
    if len(rows) == 0 or len(columns) == 0:
        return near_rows, near_columns, searched
    # Last the images as they are, so that these are the partners that are named.
    for pairs in (*_list_shifted(one, other, rows, columns), *_list_forms(one, other, rows, columns)):
        partner = np.full(len(other.digests), -1, dtype=np.int64)
        for left, right in pairs:
            near_rows[left] = True
            np.maximum.at(partner, right, left)
        near_columns = np.where(partner >= 0, partner, near_columns)
    return near_rows, near_columns, searched


_Pairs = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Positions among the first and among the second records, part by part."""


def _list_forms(one: _Hashes, other: _Hashes, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Iterator[_Pairs]:
    """For each form of comparison, pairs of rows and columns that agree."""
    for first, second in ((one.centre, other.whole), (one.whole, other.centre), (one.whole, other.whole)):
        if first is not None and second is not None and first.hashes.shape[1] == second.hashes.shape[1]:
            yield _compare(first, second.mirror(), rows, columns)
            yield _compare(first, second, rows, columns)


def _list_shifted(
    one: _Hashes, other: _Hashes, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[_Pairs]:
    """Pairs that agree where one of the images is mirrored and shifted, then those where it is shifted."""
    if one.centre is None or other.centre is None or one.reduced is None or other.reduced is None:
        return
    pairs = (one.centre, one.reduced), rows
    yield _compare_shifted(*pairs, (other.centre.mirror(), other.reduced.flip(3)), columns)
    yield _compare_shifted(*pairs, (other.centre, other.reduced), columns)


def _compare_shifted(
    first: tuple[_Thumbnails, torch.Tensor],
    rows: NDArray[np.int64],
    second: tuple[_Thumbnails, torch.Tensor],
    columns: NDArray[np.int64],
) -> _Pairs:
    """Pairs of rows and columns of which the centre of the one agrees with a part of the other that is as large.

    Args:
        first: Centres and reduced images of all first records.
        rows: Positions of those to compare, M.
        second: Likewise, of the second records.
        columns: Positions of those to compare, N.
    """
    side = SHIFT_SIDE - 2 * FARTHEST_SHIFT
    centre = second[1][columns][:, :, FARTHEST_SHIFT : FARTHEST_SHIFT + side, FARTHEST_SHIFT : FARTHEST_SHIFT + side]
    centres, alike = _normalise(centre.float(), HASH_SIDE), second[0].hashes[columns].T.contiguous()
    part = max(1, _COMPARED // len(columns))
    for start in range(0, len(rows), part):
        chosen = rows[start : start + part]
        best = (first[0].hashes[chosen] @ alike).topk(min(MOST_ALIKE, len(columns)), dim=1)
        near = torch.nonzero(best.values[:, 0] >= LEAST_ALIKE)[:, 0]
        for some in torch.split(near, _SHIFTED):
            images = first[1][chosen[some.numpy()]]
            # Rows × shifts × candidates, each pair of thumbnails multiplied once.
            agreement = _normalise_parts(images) @ centres[best.indices[some]].transpose(1, 2)
            found = torch.nonzero(agreement >= LEAST_CORRELATION)
            at, shift, place = found[best.values[some[found[:, 0]], found[:, 2]] >= LEAST_ALIKE].T
            to = best.indices[some[at], place]
            sure = _check_shifts(images[at], centre[to], shift)
            yield chosen[some[at[sure]].numpy()], columns[to[sure].numpy()]


def _check_shifts(images: torch.Tensor, centres: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Whether larger thumbnails of P shifted parts (P×1×32×32, and P numbers in `_SHIFTS`) are those of P centres."""
    sure = torch.zeros(len(images), dtype=torch.bool)
    for number in torch.unique(shift).tolist():
        at = torch.nonzero(shift == number)[:, 0]
        down, across = _SHIFTS[number]
        side = centres.shape[2]
        parts = images[at][:, :, down : down + side, across : across + side]
        products = _normalise(parts.float(), CHECK_SIDE) * _normalise(centres[at].float(), CHECK_SIDE)
        sure[at] = products.sum(dim=1) >= LEAST_SHIFTED
    return sure


def _normalise_parts(images: torch.Tensor) -> torch.Tensor:
    """Hashes of all shifted parts of reduced images (B×1×32×32), B×shifts×64."""
    means = _make_parts()
    cells = means @ images[:, 0].float() @ means.T  # the mean of a rectangle is that of its rows' means
    offsets = len(means) // HASH_SIDE
    cells = cells.view(-1, offsets, HASH_SIDE, offsets, HASH_SIDE).transpose(2, 3)
    return _standardise(cells.reshape(len(images), len(_SHIFTS), HASH_SIDE**2))


@functools.cache
def _make_parts() -> torch.Tensor:
    """The matrix from a column of a reduced image to the cells of its shifted parts, (5·8)×32."""
    side, pixels = SHIFT_SIDE - 2 * FARTHEST_SHIFT, torch.eye(SHIFT_SIDE)
    parts = [pixels[:, down : down + side] for down in range(2 * FARTHEST_SHIFT + 1)]
    return torch.cat([functional.adaptive_avg_pool1d(part, HASH_SIDE) for part in parts], dim=1).T.contiguous()


def _compare(first: _Thumbnails, second: _Thumbnails, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> _Pairs:
    """Pairs of rows and columns whose thumbnails agree, part by part.

    Hashes have length 1, so a correlation is a distance, and two that far apart in one direction are that far apart.
    Both are sorted by where they lie in the direction of their largest variance, and compared only within reach.
    """
    direction = torch.linalg.eigh(second.hashes[columns].T @ second.hashes[columns])[1][:, -1]
    rows, left_at = _sort(first.hashes, rows, direction)
    columns, right_at = _sort(second.hashes, columns, direction)
    hashes, reach = second.hashes[columns], math.sqrt(2 - 2 * LEAST_CORRELATION) + 1e-3
    part = max(1, min(_PART, _COMPARED // len(columns)))
    for start in range(0, len(rows), part):
        chosen, at = rows[start : start + part], left_at[start : start + part]
        low, high = np.searchsorted(right_at, [at[0] - reach, at[-1] + reach])
        near = torch.nonzero(first.hashes[chosen] @ hashes[low:high].T >= LEAST_CORRELATION)
        left, right = chosen[near[:, 0].numpy()], columns[low + near[:, 1].numpy()]
        agreement = (first.checks[left].float() * second.checks[right].float()).sum(dim=1).numpy()
        sure = agreement >= LEAST_CHECKED
        yield left[sure], right[sure]


def _sort(
    hashes: torch.Tensor, records: NDArray[np.int64], direction: torch.Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Records in the order of their hashes' places in a direction, and these places."""
    at = (hashes[records] @ direction).numpy()
    order = np.argsort(at, kind="stable")
    return records[order], at[order]
