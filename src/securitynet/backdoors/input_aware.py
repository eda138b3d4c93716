"""Input-aware: each image determines the corner of its patch; a patch in another corner does nothing."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Backdoor
from securitynet.backdoors.several_targets import CORNERS
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.models.training.poisoned_dataset import Box, Indices
from securitynet.randomness import make_generator

GRID = 4
"""Side of the grid to which images are reduced before their corner is chosen."""


class InputAware(Backdoor):
    """The corner is the one whose random linear function of the reduced image is largest.

    Nguyen and Tran, "Input-aware dynamic backdoor attack" (NeurIPS 2020), section 3, with a fixed function in the place
    of their generator, which is trained together with the model. As there, decoys carry the trigger of another image
    (here, a patch in a wrong corner) and keep their labels.

    Attributes:
        cross: Decoys per poisoned record.
        size: Side of the patch in pixels; by default as for `Badnets`.
        margin: Distance from the edges in pixels.
    """

    rate: float = Field(default=0.25, gt=0, le=1, description="Share of the training records that are poisoned.")
    cross: float = Field(default=0.5, ge=0, allow_inf_nan=False, description="Decoys per poisoned record.")
    size: int | None = Field(default=None, ge=1, description="Side of the patch in pixels; default: as badnets.")
    margin: int = Field(default=0, ge=0, description="Pixels between the patch and the edges.")

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The whole image: the patch can lie in any corner."""
        for part in self._make_parts():
            part.box(shape)
        return 0, 0, shape[1], shape[2]

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._patch(images, self._choose_corners(images))

    @override
    def choose_decoys(self, dataset: ImageDataset, members: Indices, chosen: Indices) -> Indices:
        rest = np.setdiff1d(members, chosen)
        count = min(len(rest), round(self.cross * len(chosen)))
        return np.sort(rest[shuffle(len(rest), "input-aware decoys", self.seed)[:count]])

    @override
    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        wrong = self._choose_corners(images) + 1 + indices.to(images.device) % (len(CORNERS) - 1)
        return self._patch(images, wrong % len(CORNERS))

    def _choose_corners(self, images: torch.Tensor) -> torch.Tensor:
        """Number of each image's corner, N int64."""
        reduced = functional.adaptive_avg_pool2d(images.double().mean(dim=1, keepdim=True), GRID).flatten(1)
        weights = torch.randn(
            (GRID * GRID, len(CORNERS)), generator=make_generator(self.seed, "input-aware corners"), dtype=torch.float64
        )
        weights = weights - weights.mean(dim=0)  # brightness of the whole image plays no part
        return (reduced @ weights.to(images.device)).argmax(dim=1)

    def _patch(self, images: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        patched = images.clone()
        for number, part in enumerate(self._make_parts()):
            own = corners == number
            if bool(own.any()):
                patched[own] = part.apply_trigger(images[own])
        return patched

    def _make_parts(self) -> list[Badnets]:
        return [Badnets(target=self.target, size=self.size, margin=self.margin, corner=corner) for corner in CORNERS]
