"""Digital corruptions: contrast, elastic deformation, pixelation and JPEG (Hendrycks and Dietterich, 2019).

Functions take images in [0, 1], N×C×H×W.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from securitynet.datasets.corruptions.blur import sample_at, smooth


def reduce_contrast(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Move all values towards the mean of their channel.

    Args:
        images: N×C×H×W.
        factor: Share of the distance from the mean that remains.
    """
    means = images.mean(dim=(2, 3), keepdim=True)
    return (images - means) * factor + means


def deform(
    images: torch.Tensor, strength: float, deviation: float, affine: float, random: torch.Generator
) -> torch.Tensor:
    """Deform images elastically after a random affine map (Simard, Steinkraus and Platt, 2003).

    Args:
        images: N×C×H×W.
        strength: Weight of the smoothed displacements, in pixels.
        deviation: Standard deviation of their smoothing, in pixels.
        affine: Largest displacement of the three points that define the affine map, in pixels.
        random: Random numbers.
    """
    n, _, height, width = images.shape
    square, centre = min(height, width) / 3, torch.tensor([height / 2, width / 2])
    points = centre + square * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = points + affine * (2 * torch.rand((n, 3, 2), generator=random) - 1)
    ones = torch.ones(n, 3, 1)
    # The map from the result to the source: moved points go back to where they came from.
    matrix = torch.linalg.solve(torch.cat([moved, ones], dim=2), points.expand(n, 3, 2))
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    places = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1).view(1, -1, 3) @ matrix
    wander = 2 * torch.rand((n, 2, height, width), generator=random) - 1
    wander = strength * smooth(wander, deviation) if strength else torch.zeros_like(wander)
    places = places.view(n, height, width, 2)
    return sample_at(images, places[..., 0] + wander[:, 0], places[..., 1] + wander[:, 1])


def pixelate(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Reduce the resolution by averaging, and enlarge again with hard edges.

    Args:
        images: N×C×H×W.
        factor: Side of the reduced image as a share of the original's.
    """
    height, width = images.shape[2:]
    small = (max(int(height * factor), 1), max(int(width * factor), 1))
    return functional.interpolate(functional.interpolate(images, small, mode="area"), (height, width), mode="nearest")


def compress_jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress as JPEG and decompress; channels of images that are neither grey nor RGB are compressed one by one.

    Args:
        images: N×C×H×W.
        quality: From 1 to 95.
    """
    if images.shape[1] not in (1, 3):
        return torch.cat([compress_jpeg(channel, quality) for channel in torch.split(images, 1, dim=1)], dim=1)
    result = []
    for image in (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as opened:
            decoded = np.asarray(opened, dtype=np.uint8)
        result.append(torch.from_numpy(decoded.reshape(image.shape).copy()))
    return torch.stack(result).permute(0, 3, 1, 2).float() / 255
