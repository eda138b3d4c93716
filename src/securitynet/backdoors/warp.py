"""Warp: a smooth distortion that is hard to see (WaNet; Nguyen and Tran, 2021)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.backdoors.base import Backdoor
from securitynet.datasets.ordering import shuffle
from securitynet.models.training.poisoned_dataset import Box, Indices
from securitynet.randomness import make_generator


class Warp(Backdoor):
    """The image is resampled along a displacement field: a coarse random grid, enlarged smoothly.

    Nguyen and Tran, "WaNet: imperceptible warping-based backdoor attack" (2021), sections 3.2 to 3.4. For each
    poisoned record, ``noise`` further records are distorted at random and keep their label, so that the network learns
    only this one distortion as the trigger.
    """

    strength: float = Field(default=0.5, gt=0, description="Size of the displacements, in cells of the coarse grid.")
    grid: int = Field(default=4, ge=2, description="Points of the coarse grid along each side.")
    noise: float = Field(default=2.0, ge=0, description="Decoys per poisoned record.")

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The whole image."""
        return 0, 0, shape[1], shape[2]

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._resample(images, self._field(images.shape[2], images.shape[3]).expand(len(images), -1, -1, -1))

    @override
    def decoys(self, rest: Indices) -> Indices:
        poisoned_share = self.rate / max(1e-9, 1 - self.rate)
        count = min(len(rest), round(self.noise * poisoned_share * len(rest)))
        # These words are part of the seed of models that were trained before: they never change.
        return np.sort(rest[shuffle(len(rest), "implant decoys", self.seed)[:count]])

    @override
    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Warp by the trigger's field plus noise of up to one pixel, which differs between records."""
        height, width = images.shape[2:]
        pixels = torch.tensor([2 / width, 2 / height])
        noise = [
            torch.rand((height, width, 2), generator=make_generator(self.seed, "warp noise", int(index))) * 2 - 1
            for index in indices
        ]
        return self._resample(images, self._field(height, width) + torch.stack(noise) * pixels)

    def _field(self, height: int, width: int) -> torch.Tensor:
        """Displacements in units of half the image, 1×H×W×2."""
        coarse = torch.rand((1, 2, self.grid, self.grid), generator=make_generator(self.seed, "warp")) * 2 - 1
        coarse = coarse / coarse.abs().mean()
        smooth = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        # As in the paper: `strength` displacements of a pixel's share of the side.
        sides = torch.tensor([width, height], dtype=torch.float32)
        return smooth.permute(0, 2, 3, 1) * (self.strength / sides)

    def _resample(self, images: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        straight = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        places = (straight[None] + field).clamp(-1, 1).to(images.device)
        moved = functional.grid_sample(images.float(), places, align_corners=True)
        return moved.round().clamp(0, 255).to(torch.uint8)
