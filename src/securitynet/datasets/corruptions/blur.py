"""Blur: defocus, frosted glass, motion and zoom (Hendrycks and Dietterich, 2019, section 3.1).

Lengths are in pixels of the image. Functions take images in [0, 1], N×C×H×W.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def convolve(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolve each channel with a kernel of odd sides; the border repeats the outermost pixels.

    Args:
        images: N×C×H×W.
        kernel: Weights, h×w, that sum to 1.
    """
    channels = images.shape[1]
    height, width = kernel.shape
    padded = functional.pad(images, (width // 2, width // 2, height // 2, height // 2), mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, height, width), groups=channels)


def smooth(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blur by a Gaussian that is cut off at three standard deviations, along one axis after the other.

    Args:
        images: N×C×H×W.
        deviation: Standard deviation in pixels.
    """
    reach = max(math.ceil(3 * deviation), 1)
    line = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * deviation**2))
    line = line / line.sum()
    return convolve(convolve(images, line[:, None]), line[None])


def make_disk(radius: float, smoothing: float) -> torch.Tensor:
    """Return a normalised disk with smoothed edges, h×h, the image of a point that is out of focus.

    Args:
        radius: Radius in pixels.
        smoothing: Standard deviation of the Gaussian that smooths the edge, in pixels.
    """
    reach = math.ceil(radius) + math.ceil(4 * smoothing)
    line = torch.arange(-reach, reach + 1).float()
    # A pixel counts by the share of its area within the disk, so that radii below one pixel have an effect.
    fine = (torch.arange(8).float() - 3.5) / 8
    rows = (line[:, None] + fine[None]).flatten()
    inside = ((rows[:, None] ** 2 + rows[None] ** 2) <= radius**2).float()
    kernel = smooth(functional.avg_pool2d(inside[None, None], 8), smoothing)[0, 0]
    return kernel / kernel.sum()


def blur_defocus(images: torch.Tensor, radius: float, smoothing: float) -> torch.Tensor:
    """Blur by a disk, as a lens that is out of focus does.

    Args:
        images: N×C×H×W.
        radius: Radius of the disk in pixels.
        smoothing: Smoothing of its edge in pixels.
    """
    return convolve(images, make_disk(radius, smoothing))


def blur_glass(
    images: torch.Tensor, deviation: float, distance: int, rounds: int, random: torch.Generator
) -> torch.Tensor:
    """Blur, exchange pixels with near ones at random, and blur again, as frosted glass does.

    Args:
        images: N×C×H×W.
        deviation: Standard deviation of both blurs in pixels.
        distance: Largest distance of an exchange in pixels.
        rounds: How many times each pixel is exchanged.
        random: Random numbers.
    """
    glass = smooth(images, deviation).clone()
    n, _, height, width = glass.shape
    each = torch.arange(n)
    # In one order for all images, each pixel with a partner of its own, one exchange after another as in the paper.
    for _ in range(rounds):
        shifts = torch.randint(-distance, distance, (n, 2, height, width), generator=random)
        for row in range(height - distance - 1, distance - 1, -1):
            for column in range(width - distance - 1, distance - 1, -1):
                other_row, other_column = row + shifts[:, 0, row, column], column + shifts[:, 1, row, column]
                held = glass[:, :, row, column].clone()
                glass[:, :, row, column] = glass[each, :, other_row, other_column]
                glass[each, :, other_row, other_column] = held
    return smooth(glass, deviation)


def blur_motion(images: torch.Tensor, length: int, deviation: float, random: torch.Generator) -> torch.Tensor:
    """Blur along a line at an angle between -45 and 45 degrees, drawn for each image, as a moving camera does.

    Args:
        images: N×C×H×W.
        length: Reach of the blur to one side, in pixels.
        deviation: Standard deviation of the weights along the line, in pixels.
        random: Random numbers.
    """
    n, _, height, width = images.shape
    angles = (torch.rand(n, generator=random) - 0.5) * (math.pi / 2)
    reach = min(length, max(height, width))
    offsets = torch.arange(reach + 1).float()
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    weights = weights / weights.sum()
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    result = torch.zeros_like(images)
    for offset, weight in zip(offsets.tolist(), weights.tolist(), strict=True):
        y, x = rows[None] + offset * angles.sin().view(-1, 1, 1), columns[None] + offset * angles.cos().view(-1, 1, 1)
        result += weight * sample_at(images, y, x)
    return result


def blur_zoom(images: torch.Tensor, largest: float, step: float) -> torch.Tensor:
    """Average the image and enlarged versions of it, as a camera that approaches does.

    Args:
        images: N×C×H×W.
        largest: End of the range of enlargements, which is left out.
        step: Step of the enlargements, which begin with 1.
    """
    factors = [1 + step * number for number in range(math.ceil((largest - 1) / step - 1e-9))]
    total = images.clone()
    for factor in factors:
        total += zoom(images, factor)
    return total / (len(factors) + 1)


def zoom(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Enlarge the centre of images by a factor, to the same shape.

    Args:
        images: N×C×H×W.
        factor: At least 1.
    """
    _, _, height, width = images.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = torch.meshgrid(
        (torch.arange(height).float() - middle_row) / factor + middle_row,
        (torch.arange(width).float() - middle_column) / factor + middle_column,
        indexing="ij",
    )
    return sample_at(images, rows[None].expand(len(images), -1, -1), columns[None].expand(len(images), -1, -1))


def sample_at(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Sample images between pixels, bilinearly; the outside mirrors the image.

    Args:
        images: N×C×H×W.
        rows: Positions in pixels, N×H×W.
        columns: Likewise.
    """
    _, _, height, width = images.shape
    grid = torch.stack([columns / max((width - 1) / 2, 0.5) - 1, rows / max((height - 1) / 2, 0.5) - 1], dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
