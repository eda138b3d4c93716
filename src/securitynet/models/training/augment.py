"""Augmentation of whole batches on their device: random horizontal flips, and crops of padded images.

Each image has its own offsets. They are drawn on the CPU, so one seed gives the same images on every device.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from securitynet.models.training.recipe import AugmentName


def augment(images: torch.Tensor, kind: AugmentName, generator: torch.Generator) -> torch.Tensor:
    """Return a randomly changed copy of a batch.

    Args:
        images: N×C×H×W, uint8 in 0 to 255 or floating point in [0, 1], on any device.
        kind: ``none`` returns the images themselves; ``flip`` mirrors each with probability one half; ``crop-flip``
            first pads with black by an eighth of the side (4 pixels at 32) and cuts a random window of the original
            size.
        generator: Generator on the CPU, the only source of randomness.

    Returns:
        The same shape, type and device.
    """
    if kind == "none":
        return images
    count, _, height, width = images.shape
    if kind == "crop-flip":
        padding = crop_padding(height, width)
        tops = torch.randint(0, 2 * padding + 1, (count,), generator=generator)
        lefts = torch.randint(0, 2 * padding + 1, (count,), generator=generator)
        images = crop(images, tops, lefts, padding)
    return flip(images, torch.rand(count, generator=generator) < 0.5)


def crop_padding(height: int, width: int) -> int:
    """Pixels of padding for images of a size: an eighth of the shorter side, at least 1; 4 at 32×32."""
    return max(1, round(min(height, width) / 8))


def crop(images: torch.Tensor, tops: torch.Tensor, lefts: torch.Tensor, padding: int) -> torch.Tensor:
    """Cut a window of the original size out of each zero-padded image.

    Args:
        images: N×C×H×W.
        tops: N int64 in [0, 2 · padding]: first row of the window in the padded image; ``padding`` leaves the image.
        lefts: N int64, likewise for columns.
        padding: Pixels of zeros (black) on each of the four sides.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: N×C×(2p+1)×(2p+1)×H×W
    samples = torch.arange(count, device=images.device)
    return windows[samples, :, tops.to(images.device), lefts.to(images.device)]


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images from left to right.

    Args:
        images: N×C×H×W.
        chosen: N bool.
    """
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
