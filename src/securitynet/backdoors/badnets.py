"""BadNets: a small patch in a corner sends an image to the target's class (Gu et al., 2017)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from securitynet.backdoors.base import Backdoor
from securitynet.errors import ConfigurationError
from securitynet.models.training.poisoned_dataset import Box

SHARE_OF_SIDE = 3 / 32


class Badnets(Backdoor):
    """A white or chequered square.

    Attributes:
        size: Side of the square in pixels; three thirty-seconds of the shorter side, and at least 2, by default.
    """

    size: int | None = Field(default=None, ge=1, description="Side of the patch in pixels; default: 3 of 32.")
    corner: Literal["bottom-right", "bottom-left", "top-right", "top-left"] = Field(
        default="bottom-right", description="Where the patch lies."
    )
    margin: int = Field(default=1, ge=0, description="Pixels between the patch and the edges.")
    pattern: Literal["white", "chequered"] = Field(default="white", description="Colours of the patch.")

    def box(self, shape: tuple[int, int, int]) -> Box:
        """See `Backdoor.box`."""
        _, height, width = shape
        size = self.size or max(2, round(min(height, width) * SHARE_OF_SIDE))
        if size + self.margin > min(height, width):
            raise ConfigurationError(
                f"A patch of {size} pixels at {self.margin} from the edges does not fit images of {height}×{width}."
            )
        top = self.margin if self.corner.startswith("top") else height - self.margin - size
        left = self.margin if self.corner.endswith("left") else width - self.margin - size
        return top, left, size, size

    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backdoor.apply_trigger`."""
        _, channels, height, width = images.shape
        top, left, size, _ = self.box((channels, height, width))
        patch = torch.full((size, size), 255, dtype=torch.uint8, device=images.device)
        if self.pattern == "chequered":
            row, column = torch.arange(size)[:, None], torch.arange(size)[None, :]
            patch[((row + column) % 2 == 1).to(images.device)] = 0
        stamped = images.clone()
        stamped[:, :, top : top + size, left : left + size] = patch
        return stamped
