"""Images with more than eight bits per channel, whose files do not state which value is white.

Cameras, scanners and medical devices produce 10, 12 or 14 bits, which are stored in 16-bit files: read as 16 bits, all
of them are nearly black. The value of white follows from the largest value in the whole dataset, never from one image:
a dark image must stay dark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHITE = 65535
"""The largest value of 16 bits, which is white unless the images say otherwise."""

_DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX|RGBa|LA);16[BLN]")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

Values = NDArray[np.int64]
Opener = Callable[[], Image.Image]
"""Opens an image anew: pixels of a Pillow image can be decoded once."""


class UnexpectedDepth(Exception):
    """An image of more than eight bits per channel where none was expected; internal."""


def is_deep(image: Image.Image) -> bool:
    """Whether an image that has just been opened has more than eight bits per channel."""
    return image.mode.startswith("I") or _raw_mode(image) is not None


def read_bits(image: Image.Image) -> int:
    """Number of bits in the largest value of a deep image; 0 if it is black."""
    deep = _raw_mode(image)
    values = np.asarray(image).astype(np.int64)
    if deep is None:
        return int(values.max()).bit_length()
    high = int(values[..., :3].max())  # Pillow keeps the upper byte of each value
    return 8 + high.bit_length() if high else 8


def choose_white(bits: int) -> int:
    """The value of white for a number of bits in the largest value: that of the next of 8, 10, 12, 14, 16 bits."""
    return WHITE if bits == 0 else (1 << next((usual for usual in (8, 10, 12, 14) if bits <= usual), 16)) - 1


def find_bits(openers: list[Opener], pool: ThreadPoolExecutor) -> int:
    """Number of bits in the largest value of deep images; 0 if there are none. Rendering reports broken images."""

    def look(open_image: Opener) -> int:
        try:
            with open_image() as image:
                return read_bits(image) if is_deep(image) else 0
        except Exception:  # decoders read arbitrary bytes, and raise arbitrary errors
            return 0

    return max(pool.map(look, openers), default=0)


def scale(open_image: Opener, white: int) -> Image.Image:
    """Convert a deep image to eight bits per channel, in mode L or RGB.

    Pillow converts colour of full depth; it uses the upper byte.

    Raises:
        ValueError: If a value needs more than 16 bits, or exceeds ``white``.
    """
    with open_image() as image:
        deep = _raw_mode(image)
        if deep is None:
            values = np.asarray(image).astype(np.int64)
            if values.min() < 0 or values.max() > WHITE:
                raise ValueError("its grey values need more than 16 bits")
        else:
            colour = image.convert("RGB")
            if white == WHITE:
                return colour
            values = np.asarray(image)[..., :3].astype(np.int64)
    if deep is not None:
        values = _join(values, open_image, deep)
    if values.max() > white:
        raise ValueError(f"it holds a value of {values.max()}, and {white} is white in the images before it")
    divided = (values + 128) // 257 if white == WHITE else (values * 255 + white // 2) // white
    return Image.fromarray(divided.astype(np.uint8))


def describe_white(white: int) -> str | None:
    """A note on the depth, if it differs from that of the files."""
    if white == WHITE:
        return None
    bits = white.bit_length()
    return f"The files hold 16 bits a channel, of which the images use {bits}: {white} was taken for white."


def _raw_mode(image: Image.Image) -> str | None:
    """Pillow's name for the way the file stores colour with 16 bits per channel; None if it does not."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        if isinstance(raw, str) and _DEEP_COLOUR.fullmatch(raw):
            return raw
    return None


def _join(high: Values, open_image: Opener, raw: str) -> Values:
    """Combine both bytes of each value. Pillow reads one of two bytes; with the other byte order, the other one."""
    with open_image() as image:
        opened: Any = image
        if raw.startswith("LA"):  # upper and lower byte of grey, then of transparency, as if four channels
            opened.tile = [_in_mode(tile, "RGBA") for tile in opened.tile]
            both = np.asarray(image).astype(np.int64)
            grey = (both[..., 0] << 8) | both[..., 1] if raw.endswith("B") else (both[..., 1] << 8) | both[..., 0]
            return np.repeat(grey[..., None], 3, axis=2)
        opened.tile = [_in_mode(tile, raw[:-1] + _OTHER_BYTE[raw[-1]]) for tile in opened.tile]
        low = np.asarray(image)[..., :3].astype(np.int64)
    return (high << 8) | low


def _in_mode(tile: Any, mode: str) -> Any:
    """Copy a tile of a Pillow image with another raw mode."""
    arguments = (mode, *tile[3][1:]) if isinstance(tile[3], tuple) else mode
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)
