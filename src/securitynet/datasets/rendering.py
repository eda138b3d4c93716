"""From one encoded image, or array, to uint8 of the shape that is asked for.

Pillow does all of it, for files and for arrays, so that the same options give the same pixels whatever the container.
Following what models are commonly trained with: transparency is dropped, not composited, and the EXIF orientation is
ignored.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from securitynet.datasets.source import Item
from securitynet.errors import DatasetError

MAX_PIXELS = 89_478_485
"""Larger images are refused unread: a file of a few kilobytes can claim to be a gigabyte (Pillow's own limit)."""

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


class ColourFound(Exception):
    """A colour image among images that were taken for grey; internal."""


@dataclass(frozen=True)
class Rendering:
    """What every image becomes.

    Attributes:
        channels: 1 (luma by Rec. 601) or 3.
        height: In pixels.
        width: In pixels.
        resize: Whether images of other shapes are resized (antialiased bilinear) or refused.
        crop: See `Source`.
        grey_only: Raise `ColourFound` at a colour image instead of reducing it to luma.
    """

    channels: int
    height: int
    width: int
    resize: bool
    crop: float | None = None
    grey_only: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


def natural_shape(item: Item, name: str) -> tuple[int, int, int]:
    """(C, H, W) of an image as it is, from its header.

    Raises:
        DatasetError: If it is not a readable image.
    """
    if isinstance(item, np.ndarray):
        channels, height, width = item.shape
        return channels, height, width
    with _open(item, name) as image:
        return (1 if _is_grey(image) else 3), image.height, image.width


def render(item: Item, name: str, rendering: Rendering) -> NDArray[np.uint8]:
    """One image as uint8, C×H×W.

    Args:
        item: What `Pixels.fetch` gave.
        name: What to call it in a message.
        rendering: What it is to become.

    Raises:
        DatasetError: If it is broken, too large, or of another shape where resizing was not asked for.
        ColourFound: See `Rendering`.
    """
    if isinstance(item, np.ndarray):
        if item.shape == rendering.shape:
            return item
        image = Image.fromarray(np.ascontiguousarray(item[0] if item.shape[0] == 1 else item.transpose(1, 2, 0)))
    else:
        image = _decode(item, name)
    if rendering.channels == 1 and image.mode != "L":
        if rendering.grey_only:
            raise ColourFound
        image = image.convert("L")
    elif rendering.channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (rendering.width, rendering.height):
        if not rendering.resize:
            raise DatasetError(
                f"The images differ in shape: {name} is {image.height}×{image.width}, the first one "
                f"{rendering.height}×{rendering.width}.",
                hint="Pass --image-size N (size=N in Python) to bring all of them to N×N.",
            )
        image = _resized(image, rendering)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if rendering.channels == 1 else array.transpose(2, 0, 1)


def _resized(image: Image.Image, rendering: Rendering) -> Image.Image:
    target = (rendering.width, rendering.height)
    if rendering.crop is None:
        return image.resize(target, Image.Resampling.BILINEAR)
    # The centred window of the source that the crop shows; resizing straight from it equals resize-then-crop.
    side = min(image.size) * rendering.crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize(target, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _open(item: bytes | Path, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(item) if isinstance(item, bytes) else item)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except Exception as error:  # decoders meet arbitrary bytes, and raise arbitrary errors
        raise _broken(name, error) from error
    if math.prod(image.size) > MAX_PIXELS:
        image.close()
        raise _too_large(name)
    return image


def _decode(item: bytes | Path, name: str) -> Image.Image:
    with _open(item, name) as image:
        try:
            image.load()
            return _plain(image)
        except DatasetError:
            raise
        except Exception as error:  # as above
            raise _broken(name, error) from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode in ("L", "RGB"):
        return image.copy()
    if image.mode.startswith("I"):
        # 16 bits a pixel; Pillow's own conversion would clip at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values need more than 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds floating-point values, whose range is unknown")
    if image.mode == "P":
        return image.convert("RGBA").convert("RGB")
    return image.convert("L" if _is_grey(image) else "RGB")


def _broken(name: str, error: Exception) -> DatasetError:
    reason = str(error).rstrip(".") or type(error).__name__
    if "cannot identify image file" in reason:
        reason = "its format is not recognised"
    return DatasetError(f"{name} is not a readable image: {reason}.", hint="Mend it or take it out of the dataset.")


def _too_large(name: str) -> DatasetError:
    return DatasetError(
        f"{name} claims to have more than {MAX_PIXELS:,} pixels.",
        hint="Such files are used to exhaust memory; scale it down, or take it out of the dataset.",
    )
