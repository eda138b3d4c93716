"""Features of images that no training has shaped: responses to random patches of them, and their coarse pixels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

FILTERS = 64
"""Number of patches."""

LARGEST_SIDE = 64
"""Images with a longer side are reduced to it, in pixels."""

COARSE = 8
"""Side of the grid of mean pixel values."""

_BATCH = 256


def draw_filters(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Draw random patches of images, with mean 0 and norm 1; F×C×P×P.

    Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning" (2011), use such patches
    as the filters of one layer.

    Args:
        images: N×C×H×W uint8.
        random: Random numbers.
    """
    rows = torch.randint(len(images), (FILTERS,), generator=random)
    chosen = _reduce(images[rows])
    height, width = chosen.shape[2:]
    side = max(1, min(6, min(height, width) // 3))
    tops = torch.randint(height - side + 1, (FILTERS,), generator=random).tolist()
    lefts = torch.randint(width - side + 1, (FILTERS,), generator=random).tolist()
    patches = torch.stack(
        [image[:, y : y + side, x : x + side] for image, y, x in zip(chosen, tops, lefts, strict=True)]
    )
    patches = patches - patches.mean(dim=(1, 2, 3), keepdim=True)
    lengths = torch.linalg.vector_norm(patches, dim=(1, 2, 3), keepdim=True)
    filters: torch.Tensor = patches / lengths.clamp_min(1e-6)
    return filters


def compute_features(images: torch.Tensor, filters: torch.Tensor) -> NDArray[np.float64]:
    """Compute the features of images, N×D.

    These are the mean and the maximum, over each quarter of the image, of the positive responses to each filter, and
    the mean pixel values on a coarse grid.

    Args:
        images: N×C×H×W uint8.
        filters: As `draw_filters` returns them.
    """
    parts = []
    for few in torch.split(images, _BATCH):
        reduced = _reduce(few)
        responses = functional.conv2d(reduced, filters).relu()
        grid = min(COARSE, *reduced.shape[2:])
        pooled = [
            functional.adaptive_avg_pool2d(responses, min(2, *responses.shape[2:])),
            functional.adaptive_max_pool2d(responses, min(2, *responses.shape[2:])),
            functional.adaptive_avg_pool2d(reduced, grid),
        ]
        parts.append(torch.cat([part.flatten(1) for part in pooled], dim=1))
    return np.asarray(torch.cat(parts).double().numpy())


def _reduce(images: torch.Tensor) -> torch.Tensor:
    """Convert images to [0, 1], and reduce large ones."""
    height, width = images.shape[2:]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return functional.adaptive_avg_pool2d(images.float() / 255, size)
