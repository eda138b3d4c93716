"""Images as data URIs, so that a report is one file."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 96
"""Larger images are shown reduced to this, in pixels: a dozen photographs must not make the page heavy."""


def encode_data_uri(pixels: NDArray[np.uint8]) -> str:
    """A PNG for ``src``.

    Args:
        pixels: C×H×W with 1 or 3 channels, 0 to 255.
    """
    channels = pixels.shape[0]
    if channels not in (1, 3):
        raise ValueError(f"images of {channels} channels can't be shown")
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def is_reduced(shape: tuple[int, ...]) -> bool:
    """Whether an image of this shape (…, height, width) is shown smaller than it is."""
    return max(shape[-2:]) > LONGEST_SIDE
