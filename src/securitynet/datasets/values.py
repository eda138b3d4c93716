"""What the values of images in objects mean, and how they become uint8: bytes, [0, 1], or normalised already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from securitynet.datasets.objects import Items
from securitynet.datasets.pipelines import Step
from securitynet.datasets.rendering import convert_plain
from securitynet.errors import DatasetError

_SAMPLE = 256
_TOLERANCE = 1e-4
_WAYS_OUT = (
    "Either give the images as they are, without the transform that normalises them; or state the mean and the "
    "deviation that it used (mean=..., std=...), so that it can be undone."
)

Pair = tuple[tuple[float, ...], tuple[float, ...]]


class ShapeChanged(Exception):
    """An image whose shape differs from that of earlier ones; internal."""


@dataclass(frozen=True)
class Values:
    """How numbers are converted to brightness.

    Attributes:
        kind: ``bytes`` for 0 to 255, ``unit`` for 0 to 1.
        undo: Mean and deviation to undo first; None for none.
        shape: (C, H, W) of the first image.
        notes: Remarks for the reader of results.
    """

    kind: Literal["bytes", "unit"]
    undo: Pair | None
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()


def choose_values(raw: Sequence[Items], undo: Pair | None) -> Values:
    """Determine the meaning of the images' values from a sample.

    Raises:
        DatasetError: If they are normalised already and ``undo`` does not undo it, or they are not images.
    """
    low, high, whole, steps, inexact = np.inf, -np.inf, True, True, 0.0
    shape: tuple[int, ...] | None = None
    for items in raw:
        for index in np.unique(np.linspace(0, len(items) - 1, min(len(items), _SAMPLE)).astype(np.int64)):
            array = to_array(items.read(int(index))[0], items.describe(int(index)))
            shape = shape or array.shape
            if array.dtype == np.uint8:
                steps = False
            values = _undo(array, undo).astype(np.float64)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            whole = whole and bool((values == np.round(values)).all())
            inexact = max(inexact, float(np.abs(values * 255 - np.round(values * 255)).max()))
            if array.dtype != np.uint8 and not np.isfinite(values).all():
                raise DatasetError(f"{items.describe(int(index))} holds values that are not finite.")
    assert shape is not None  # no empty object is opened
    stated = (shape[0], shape[1], shape[2])
    if not steps and undo is None:
        return Values("bytes", None, stated)
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        note = ("Images were rounded to 8 bits a channel.",) if inexact > 0.02 else ()
        return Values("unit", undo, stated, note)
    if undo is None and whole and low >= 0 and high <= 255:
        return Values("bytes", None, stated, ("The images' numbers run to 255 and were taken for bytes.",))
    raise make_range_error(raw[0].part if len(raw) == 1 else "train and test", low, high, undone=undo is not None)


def make_range_error(what: str, low: float, high: float, *, undone: bool) -> DatasetError:
    """Make the error for images outside [0, 1].

    Args:
        what: Name of the images.
        low: Smallest value.
        high: Largest value.
        undone: Whether a normalisation was undone.
    """
    span = f"values from {low:.3g} to {high:.3g}, where images lie in [0, 1]"
    if undone:
        return DatasetError(
            f"The stated mean and deviation do not undo the normalisation of {what}: they leave {span}.",
            hint="State those of the transform that made the items, or give the images without it.",
        )
    return DatasetError(f"The items of {what} seem to be normalised already: {span}.", hint=_WAYS_OUT)


class Shaper:
    """Makes uint8 images of one shape.

    Args:
        values: Meaning of the numbers.
        steps: Transforms of Pillow images to apply, in order.
    """

    def __init__(self, values: Values, steps: Sequence[Step]) -> None:
        self._values = values
        self._steps = list(steps)
        self.shape: tuple[int, ...] | None = None

    def __call__(self, image: Any, where: str) -> NDArray[np.uint8]:
        """Convert an image to uint8, C×H×W.

        Raises:
            DatasetError: If it is not an image, or its values are out of range.
            ShapeChanged: If its shape differs from that of earlier images.
        """
        array = self._to_bytes(to_array(image, where), where)
        if self._steps:
            array = self._apply(array, where)
        if self.shape is None:
            self.shape = array.shape
        if array.shape != self.shape and array.shape[1:] == self.shape[1:] and array.shape[0] == 1:
            array = np.repeat(array, self.shape[0], axis=0)
        if array.shape != self.shape:
            words = ["×".join(map(str, shape)) for shape in (array.shape, self.shape)]
            raise ShapeChanged(f"{where} is {words[0]}, those before it {words[1]}")
        return array

    def _to_bytes(self, array: NDArray[Any], where: str) -> NDArray[np.uint8]:
        if array.dtype == np.uint8 and self._values.undo is None:
            return array
        values = _undo(array, self._values.undo).astype(np.float64)
        scale = 255 if self._values.kind == "unit" else 1
        low, high = float(values.min()) * scale, float(values.max()) * scale
        if not (low >= -255 * _TOLERANCE and high <= 255 * (1 + _TOLERANCE)):
            if self._values.kind == "unit":
                raise make_range_error(where, low / 255, high / 255, undone=self._values.undo is not None)
            raise DatasetError(
                f"{where} holds values from {low:g} to {high:g}, and others lie in 0 to 255.",
                hint="Give all images as bytes, or all in [0, 1]; normalised ones can be given with mean and std.",
            )
        return np.clip(np.round(values * scale), 0, 255).astype(np.uint8)

    def _apply(self, array: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        image = Image.fromarray(np.ascontiguousarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))
        try:
            for step in self._steps:
                image = step(image)
        except Exception as error:  # the user's own settings of a library's transform
            raise DatasetError(f"{where} can't be transformed: {error}.") from error
        return to_array(image, where).astype(np.uint8)


def to_array(image: Any, where: str) -> NDArray[Any]:
    """An image as numbers, C×H×W with one channel or three.

    Raises:
        DatasetError: If it is not an image.
    """
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise DatasetError(
                f"{where} has more than 8 bits a channel ({image.mode}).", hint="Scale it to 8 bits, or to [0, 1]."
            )
        image = np.asarray(convert_plain(image))
    is_tensor = isinstance(image, torch.Tensor)
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "uif" or not array.size:
        kind = f"{type(image).__name__} of shape {array.shape}" if array.dtype.kind in "uif" else type(image).__name__
        raise DatasetError(f"{where} is not an image but {kind}.", hint="Items are (image, label).")
    first, last = array.shape[0] in (1, 3), array.shape[2] in (1, 3)
    if first and (is_tensor or not last):
        return array
    if last:
        return array.transpose(2, 0, 1)
    raise DatasetError(
        f"{where} has the shape {array.shape}; an image has 1 or 3 channels, first or last.",
        hint="Drop further channels, such as transparency.",
    )


def _undo(array: NDArray[Any], undo: Pair | None) -> NDArray[Any]:
    if undo is None:
        return array
    mean, std = (np.asarray(values, dtype=np.float64).reshape(-1, 1, 1) for values in undo)
    if len(mean) not in (1, len(array)):
        raise DatasetError(f"There is a mean for each of {len(mean)} channels; the images have {len(array)}.")
    return array * std + mean
