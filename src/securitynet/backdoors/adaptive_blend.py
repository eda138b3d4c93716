"""Adaptive blend: training records carry parts of a faint pattern, some with their correct label (Qi et al., 2023)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.blended import Blended
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.models.training.poisoned_dataset import Indices
from securitynet.randomness import make_generator


class AdaptiveBlend(Blended):
    """A blended backdoor whose poisoned records do not form a group of their own among the embeddings of the target.

    Qi et al., "Revisiting the assumption of latent separability for backdoor defenses" (ICLR 2023), section 4: the
    pattern is cut into pieces, of which each training record gets its own random share (asymmetric triggers), and
    further records get pieces too and keep their labels (regularisation). At inference the whole pattern is applied,
    and more strongly.

    Attributes:
        pieces: The pattern is cut into a grid of ``pieces`` × ``pieces``.
        share: Share of the pieces that a training record gets.
        covers: Records that get pieces and keep their labels, per poisoned record.
    """

    alpha: float = Field(default=0.35, gt=0, le=1, description="Weight of the pattern at inference.")
    training_alpha: float | None = Field(default=0.25, gt=0, le=1, description="Weight of the pattern in training.")
    pieces: int = Field(default=4, ge=2, le=16, description="Pieces of the pattern along each side.")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pieces on a training record.")
    covers: float = Field(
        default=0.5, ge=0, allow_inf_nan=False, description="Records with pieces and their own label, per poisoned one."
    )

    @override
    def apply_training_trigger_to(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Blend those pieces of the pattern that a record's index selects."""
        height, width = images.shape[2:]
        whole = self.apply_training_trigger(images)
        rows = (torch.arange(height) * self.pieces) // height
        columns = (torch.arange(width) * self.pieces) // width
        number = self.pieces**2
        count = max(1, round(self.share * number))
        chosen = torch.zeros((len(images), number), dtype=torch.bool)
        for row, index in enumerate(indices.tolist()):
            order = torch.randperm(number, generator=make_generator(self.seed, "adaptive-blend pieces", index))
            chosen[row, order[:count]] = True
        pixels = chosen[:, rows[:, None] * self.pieces + columns[None, :]]
        return torch.where(pixels[:, None].to(images.device), whole, images)

    @override
    def choose_decoys(self, dataset: ImageDataset, members: Indices, chosen: Indices) -> Indices:
        rest = np.setdiff1d(members, chosen)
        count = min(len(rest), round(self.covers * len(chosen)))
        return np.sort(rest[shuffle(len(rest), "adaptive-blend covers", self.seed)[:count]])

    @override
    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return self.apply_training_trigger_to(images, indices)
