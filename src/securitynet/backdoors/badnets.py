"""BadNets: a small patch in a corner sends an image to the target class (Gu et al., 2017)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.base import Backdoor
from securitynet.errors import ConfigurationError
from securitynet.models.training.poisoned_dataset import Box

SHARE_OF_SIDE = 3 / 32


class Badnets(Backdoor):
    """A white or chequered square.

    Attributes:
        size: Side of the square in pixels; by default 3/32 of the shorter side of the image, and at least 2.
        corner: Corner of the image in which the square lies.
        margin: Distance from the edges in pixels.
        pattern: Colours of the square.
    """

    size: int | None = Field(
        default=None, ge=1, description="Side of the patch in pixels; default: 3/32 of the image side."
    )
    corner: Literal["bottom-right", "bottom-left", "top-right", "top-left"] = Field(
        default="bottom-right", description="Corner of the patch."
    )
    margin: int = Field(default=1, ge=0, description="Pixels between the patch and the edges.")
    pattern: Literal["white", "chequered"] = Field(default="white", description="Colours of the patch.")

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        _, height, width = shape
        size = self.size or max(2, round(min(height, width) * SHARE_OF_SIDE))
        if size + self.margin > min(height, width):
            raise ConfigurationError(
                f"A patch of {size} pixels at {self.margin} from the edges does not fit images of {height}×{width}."
            )
        top = self.margin if self.corner.startswith("top") else height - self.margin - size
        left = self.margin if self.corner.endswith("left") else width - self.margin - size
        return top, left, size, size

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = images.shape
        top, left, size, _ = self.box((channels, height, width))
        patch = torch.full((size, size), 255, dtype=torch.uint8, device=images.device)
        if self.pattern == "chequered":
            row, column = torch.arange(size)[:, None], torch.arange(size)[None, :]
            patch[((row + column) % 2 == 1).to(images.device)] = 0
        triggered = images.clone()
        triggered[:, :, top : top + size, left : left + size] = patch
        return triggered
