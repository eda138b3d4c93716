"""Blended: a faint random pattern over the whole image (Chen et al., 2017)."""

from __future__ import annotations

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.base import Backdoor
from securitynet.models.training.poisoned_dataset import Box
from securitynet.randomness import make_generator


class Blended(Backdoor):
    """The image becomes (1 - alpha)·image + alpha·pattern, where the pattern is uniform noise derived from the seed.

    Chen et al., "Targeted backdoor attacks on deep learning systems using data poisoning" (2017), section IV.
    """

    alpha: float = Field(default=0.2, gt=0, le=1, description="Weight of the pattern.")
    training_alpha: float | None = Field(
        default=None, gt=0, le=1, description="Weight of the pattern in training records; default: the same."
    )

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The whole image."""
        return 0, 0, shape[1], shape[2]

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._blend(images, self.alpha)

    @override
    def apply_training_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._blend(images, self.training_alpha or self.alpha)

    def _blend(self, images: torch.Tensor, alpha: float) -> torch.Tensor:
        pattern = torch.rand(tuple(images.shape[1:]), generator=make_generator(self.seed, "blended pattern")) * 255
        mixed = torch.lerp(images.float(), pattern.to(images.device)[None], alpha)
        return mixed.round().clamp(0, 255).to(torch.uint8)
