"""From one encoded image, or array, to uint8 of the requested shape.

Pillow does all of it, for files and for arrays, so that the same options give the same pixels in any format. As is
common in training, transparency is dropped, not composited, and the EXIF orientation is ignored. Resizing and cropping
equal those of `torchvision.transforms` on Pillow images, to the pixel.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from securitynet.datasets import depth
from securitynet.datasets.depth import UnexpectedDepth, is_deep
from securitynet.datasets.source import Item
from securitynet.errors import DatasetError

MAX_PIXELS = 89_478_485
"""Larger images are refused unread: a file of a few kilobytes can claim to be a gigabyte (Pillow's own limit)."""

_MOST_DECODED = 12 * MAX_PIXELS
"""Pixels that are decoded of one image: a progressive JPEG may have thousands of scans, each of all its pixels."""
_SCAN = b"\xff\xda"
_PROGRAMS = ("EPS",)
"""Formats that Pillow has another program run."""

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class UnexpectedColour(Exception):
    """A colour image where only grey ones were expected; internal."""


@dataclass(frozen=True)
class Rendering:
    """How every image is rendered.

    Attributes:
        channels: 1 (luma by Rec. 601) or 3.
        height: Height in pixels.
        width: Width in pixels.
        resize: Whether images of other shapes are resized; otherwise they are refused.
        crop: Share of the shorter side that a centred square crop takes; None resizes the whole image.
        grey_only: Whether a colour image raises `UnexpectedColour` instead of being converted to luma.
        shorter_side: Pixels to which the shorter side is resized first, the longer one in proportion.
        centre: Side of the square that is then cut out of the centre, with black around a smaller image.
        interpolation: Method of resizing, always antialiased except for ``nearest``.
        white: The value of white in images with more than eight bits.
        shallow_only: Whether such an image raises `UnexpectedDepth`.
    """

    channels: int
    height: int
    width: int
    resize: bool
    crop: float | None = None
    grey_only: bool = False
    shorter_side: int | None = None
    centre: int | None = None
    interpolation: Interpolation = "bilinear"
    white: int = depth.WHITE
    shallow_only: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def transforms(self) -> bool:
        """Whether images are resized or cropped whatever their shape."""
        return self.shorter_side is not None or self.centre is not None

    def options(self) -> dict[str, object]:
        """Everything that determines the pixels, as JSON; options without effect are left out of identities."""
        stated: dict[str, object] = {"shape": list(self.shape), "crop": self.crop}
        if self.transforms:
            stated |= {"shorter_side": self.shorter_side, "centre": self.centre}
        if self.interpolation != "bilinear" and (self.resize or self.shorter_side is not None):
            stated["interpolation"] = self.interpolation
        if self.white != depth.WHITE:
            stated["white"] = self.white
        return stated


def read_natural_shape(item: Item, name: str) -> tuple[int, int, int]:
    """(C, H, W) of an image as stored, from its header.

    Raises:
        DatasetError: If it is not a readable image.
    """
    if isinstance(item, np.ndarray):
        channels, height, width = item.shape
        return channels, height, width
    with open_image(item, name) as image:
        return (1 if _is_grey(image) else 3), image.height, image.width


def holds_deep(item: Item, name: str) -> bool:
    """Whether an image has more than eight bits per channel, from its header; `DatasetError` if it is unreadable."""
    if isinstance(item, np.ndarray):
        return False
    with open_image(item, name) as image:
        return is_deep(image)


def render_image(item: Item, name: str, rendering: Rendering) -> NDArray[np.uint8]:
    """Render one image as uint8, C×H×W.

    Args:
        item: An image as `Pixels.fetch` returns it.
        name: Its name, for messages.
        rendering: How it is rendered.

    Raises:
        DatasetError: If it is broken, too large, or of another shape while resizing is off.
        UnexpectedColour: If `Rendering.grey_only` is set and the image has colour.
        UnexpectedDepth: If `Rendering.shallow_only` is set and the image has more than eight bits per channel.
    """
    if isinstance(item, np.ndarray):
        if item.shape == rendering.shape and not rendering.transforms:
            return item
        image = Image.fromarray(np.ascontiguousarray(item[0] if item.shape[0] == 1 else item.transpose(1, 2, 0)))
    else:
        image = _decode(item, name, rendering)
    if rendering.channels == 1 and image.mode != "L":
        if rendering.grey_only:
            raise UnexpectedColour
        image = image.convert("L")
    elif rendering.channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    image = _transformed(image, name, rendering)
    if image.size != (rendering.width, rendering.height):
        if not rendering.resize:
            raise DatasetError(
                f"The images differ in shape: {name} is {image.height}×{image.width}, the first one "
                f"{rendering.height}×{rendering.width}.",
                hint="Say how the model is tested: --resize 256 --crop 224 --interpolation bicubic keeps proportions; "
                "--image-size N stretches all of them to N×N.",
            )
        image = _resized(image, rendering)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if rendering.channels == 1 else array.transpose(2, 0, 1)


def _transformed(image: Image.Image, name: str, rendering: Rendering) -> Image.Image:
    """``Resize`` and ``CenterCrop`` as torchvision does them: the same sizes, offsets and rounding."""
    if rendering.shorter_side is not None:
        width, height = image.size
        short, long = sorted((width, height))
        other = int(rendering.shorter_side * long / short)
        if other * rendering.shorter_side > MAX_PIXELS:
            raise DatasetError(
                f"{name} is {height}×{width}: resized in proportion it would have more than {MAX_PIXELS:,} pixels.",
                hint="Take it out of the dataset, or give a smaller --resize.",
            )
        size = (rendering.shorter_side, other) if width <= height else (other, rendering.shorter_side)
        if size != image.size:
            image = image.resize(size, _FILTERS[rendering.interpolation])
    if rendering.centre is not None:
        side = rendering.centre
        left, top = _centred(image.width, side), _centred(image.height, side)
        image = image.crop((left, top, left + side, top + side))  # the outside is black
    return image


def _centred(length: int, side: int) -> int:
    """Start of a crop. A smaller image is padded first, with the larger half of the margin behind it."""
    return -((side - length) // 2) if length < side else round((length - side) / 2)


def _resized(image: Image.Image, rendering: Rendering) -> Image.Image:
    target = (rendering.width, rendering.height)
    resampling = _FILTERS[rendering.interpolation]
    if rendering.crop is None:
        return image.resize(target, resampling)
    # The centred window of the source that the crop shows; resizing straight from it equals resize-then-crop.
    side = min(image.size) * rendering.crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize(target, resampling, box=(left, top, left + side, top + side))


def open_image(item: bytes | Path, name: str) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises:
        DatasetError: If it is broken or too large.
    """
    try:
        image = Image.open(io.BytesIO(item) if isinstance(item, bytes) else item)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except Exception as error:  # decoders read arbitrary bytes, and raise arbitrary errors
        raise _broken(name, error) from error
    if math.prod(image.size) > MAX_PIXELS:
        image.close()
        raise _too_large(name)
    if image.format in _PROGRAMS:
        image.close()
        raise _broken(name, ValueError(f"{image.format} files are programs, which are not run"))
    if image.info.get("progressive") and math.prod(image.size) * _count_scans(item) > _MOST_DECODED:
        image.close()
        raise _broken(name, ValueError("it is encoded in so many passes that it would take minutes to decode"))
    return image


def _count_scans(item: bytes | Path) -> int:
    content = item if isinstance(item, bytes) else item.read_bytes()
    return content.count(_SCAN)


def open_later(item: bytes | Path, name: str) -> Callable[[], Image.Image]:
    """A function that opens an image; see `open_image`."""
    return lambda: open_image(item, name)


_decoding = threading.Lock()
_decoders: list[bool] = []
"""For each image that is being decoded, what Pillow's flag was before the first of them."""


@contextlib.contextmanager
def _whole_images() -> Iterator[None]:
    """Let Pillow refuse images that are cut short, whatever the process that imports this package wants.

    Other libraries (WeasyPrint) let it fill them with grey, by a flag for the whole process, which is put back.
    """
    with _decoding:
        _decoders.append(_decoders[0] if _decoders else ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _decoding:
            before = _decoders.pop()
            if not _decoders:
                ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode(item: bytes | Path, name: str, rendering: Rendering) -> Image.Image:
    with open_image(item, name) as image:
        deep = is_deep(image)
        if deep and rendering.shallow_only:
            raise UnexpectedDepth
        try:
            with _whole_images():
                if deep:
                    return depth.scale(open_later(item, name), rendering.white)
                image.load()
                return convert_plain(image)
        except DatasetError:
            raise
        except Exception as error:  # as above
            raise _broken(name, error) from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY


def convert_plain(image: Image.Image) -> Image.Image:
    """Convert an image to mode L or RGB, without transparency.

    Raises:
        ValueError: If it holds floating-point values.
    """
    if image.mode in ("L", "RGB"):
        return image.copy()
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
