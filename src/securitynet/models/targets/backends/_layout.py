"""The input shape that an exported graph or an endpoint declares, and how to arrange images for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import ModelError, TargetError

_IMAGE_CHANNELS = (1, 3)
_LARGEST_SIZE = 8192
_MOST_VALUES = 1 << 26


@dataclass(frozen=True)
class InputLayout:
    """The declared shape of an input; None stands for "any".

    Attributes:
        batch: Fixed number of images per batch, if the graph was exported with one.
        channels: Channels of an image.
        size: Height and width in pixels.
        channels_last: Whether the input takes H×W×C images.
    """

    batch: int | None
    channels: int | None
    size: tuple[int, int] | None
    channels_last: bool

    def arrange(self, images: NDArray[np.float32], reference: str) -> NDArray[np.float32]:
        """Arrange N×C×H×W images as the input declares.

        Raises:
            TargetError: If their size differs from that of the input.
        """
        if self.size is not None and images.shape[2:] != self.size:
            height, width = images.shape[2:]
            raise TargetError(
                f"{reference} takes images of {self.size[0]}×{self.size[1]} pixels, not {height}×{width}.",
                hint=f"Resize them with --input-size {self.size[0]}.",
            )
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if self.channels_last else images

    def padded(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Repeat the last image until there are ``batch`` images; images are unchanged if any number is accepted."""
        if self.batch is None or len(images) == self.batch:
            return images
        return np.concatenate([images, np.repeat(images[-1:], self.batch - len(images), axis=0)])


def read_layout(shape: Sequence[Any], reference: str) -> InputLayout:
    """Read the layout from a declared shape, in which anything but a positive integer means "any".

    A shape whose last entry is 1 or 3, and whose second is not, is taken as channels-last.

    Raises:
        ModelError: If it is not the shape of a batch of images, or too large for one.
    """
    dims = [d if isinstance(d, int) and not isinstance(d, bool) and d > 0 else None for d in shape]
    if len(dims) != 4:
        written = "×".join("?" if d is None else str(d) for d in dims[:9]) or "no dimensions"
        raise ModelError(
            f"{reference} takes inputs of shape {written}; batches of images have four dimensions.",
            hint="Only image classifiers that take N×C×H×W (or N×H×W×C) can be assessed.",
        )
    channels_last = dims[3] in _IMAGE_CHANNELS and dims[1] not in _IMAGE_CHANNELS
    batch, channels, height, width = (dims[i] for i in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3)))
    size = (height, width) if height is not None and width is not None else None
    if max(height or 1, width or 1) > _LARGEST_SIZE or math.prod(d or 1 for d in dims) > _MOST_VALUES:
        written = "×".join("?" if d is None else str(d) for d in dims)
        raise ModelError(
            f"{reference} takes inputs of shape {written}, which is too large for a batch of images.",
            hint=f"Images have at most {_LARGEST_SIZE} pixels a side, and a batch {_MOST_VALUES:,} values.",
        )
    return InputLayout(batch, channels, size, channels_last)
