"""The digits of scikit-learn, with two attributes measured from the pixels."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute
from securitynet.datasets.ordering import sample_stratified
from securitynet.datasets.source import ArrayPixels, Request, Source


def digits(request: Request) -> Source:
    """The 1,797 test images of the UCI handwritten digits, 8×8, as scikit-learn ships them.

    Values 0 to 16 are scaled to 0 to 255. The dataset has no division of its own: 1,437 records are ``train`` and 360
    are
    ``test``, a fixed choice with equal class shares (20%). There are two attributes, each divided at the median:

    - ``slant``: ``leftward`` or ``rightward``, see `measure_slant`;
    - ``stroke-thickness``: ``thin`` or ``thick``, see `measure_stroke_thickness`.
    """
    values, labels = _read_digits()
    images = np.round(values * (255 / 16)).astype(np.uint8)[:, None]
    test = sample_stratified(labels, 360, "digits", "test")
    return Source(
        labels=labels,
        class_names=tuple(str(digit) for digit in range(10)),
        parts={"train": np.setdiff1d(np.arange(len(labels), dtype=np.int64), test), "test": test},
        pixels=ArrayPixels(
            lambda: images, (len(images), 1, 8, 8), content=hashlib.sha256(images.tobytes()).hexdigest()
        ),
        attributes={
            "slant": _halves(measure_slant(values), ("leftward", "rightward")),
            "stroke-thickness": _halves(measure_stroke_thickness(values), ("thin", "thick")),
        },
    )


def _read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images, N×8×8 with values 0 to 16, and labels.

    They are read from the file that `sklearn.datasets.load_digits` reads: importing it takes longer than all the rest.
    """
    package = importlib.util.find_spec("sklearn")
    folder = (package.submodule_search_locations or [""])[0] if package else ""
    file = Path(folder, "datasets", "data", "digits.csv.gz")
    if not file.is_file():
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return np.asarray(bunch.images, dtype=np.float64), np.asarray(bunch.target, dtype=np.int64)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def measure_slant(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shear of each image's ink from the vertical: horizontal shift per unit of height.

    With ink as mass, x to the right and y upwards from the centroid, it is μ11 / μ02: the slope of the regression of x
    on y, and the shear by which images are commonly deslanted. It is 0 for a vertical stroke and positive for one that
    leans right, like ``/``.

    Args:
        images: N×H×W, non-negative, 0 for paper.

    Returns:
        N values; 0 if no ink spans two rows.
    """
    _, height, width = images.shape
    mass = images.sum(axis=(1, 2))
    safe = np.where(mass > 0, mass, 1.0)
    x = np.arange(width, dtype=np.float64)[None, None, :]
    y = (height - 1 - np.arange(height, dtype=np.float64))[None, :, None]
    dx = x - ((images * x).sum(axis=(1, 2)) / safe)[:, None, None]
    dy = y - ((images * y).sum(axis=(1, 2)) / safe)[:, None, None]
    mu11 = (images * dx * dy).sum(axis=(1, 2))
    mu02 = (images * dy * dy).sum(axis=(1, 2))
    flat = mu02 <= 1e-12 * safe
    return np.where(flat, 0.0, mu11 / np.where(flat, 1.0, mu02))


def measure_stroke_thickness(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean width of the strokes of each image, in pixels: twice the ink's area over the length of its edge.

    A stroke of length L and width w has area L·w and an edge of about 2·L. The length of the edge is the total
    variation of the image. For a black-and-white image that is its perimeter and, unlike a count of edge pixels, it
    remains correct if grey levels smooth the edge. Both it and the area are linear in the ink, so its darkness does not
    matter.

    Args:
        images: N×H×W, non-negative, 0 for paper.

    Returns:
        N values; 0 if there is no ink.
    """
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    across = np.diff(padded, axis=2)[:, :-1, :]
    down = np.diff(padded, axis=1)[:, :, :-1]
    edge = np.hypot(across, down).sum(axis=(1, 2))
    return np.asarray(2 * images.sum(axis=(1, 2)) / np.where(edge > 0, edge, 1.0))


def _halves(values: NDArray[np.float64], names: tuple[str, str]) -> Attribute:
    # Rounded, so that the last bit of a sum does not change a record's side on another machine.
    rounded = np.round(values, 9)
    return Attribute((rounded > np.median(rounded)).astype(np.int64), names)
