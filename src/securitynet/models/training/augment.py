"""Augmentation of whole batches on their device: horizontal flips, crops of padded images, and shifts.

Each image has its own offsets. They are drawn on the CPU, so one seed gives the same images on every device.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from securitynet.models.training.recipe import AugmentName
from securitynet.randomness import make_generator


def augment(
    images: torch.Tensor, kind: AugmentName, generator: torch.Generator, mirrored: torch.Tensor | None = None
) -> torch.Tensor:
    """Return a randomly changed copy of a batch.

    Args:
        images: N×C×H×W, uint8 in 0 to 255 or floating point in [0, 1], on any device.
        kind: ``none`` returns the images themselves; ``flip`` mirrors each with probability one half; ``crop-flip``
            first pads with black by an eighth of the side (4 pixels at 32) and cuts a random window of the original
            size; ``shift-flip`` shifts by up to a sixteenth of the side (2 pixels at 32) and fills by reflection.
        generator: Generator on the CPU, the only source of randomness.
        mirrored: Which images to mirror, N bool; drawn if None. See `choose_mirrored`.

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
    if kind == "shift-flip":
        reach = max(1, round(min(height, width) / 16))
        downs, rights = (torch.randint(-reach, reach + 1, (count,), generator=generator) for _ in range(2))
        images = shift(images, downs, rights)
    return flip(images, torch.rand(count, generator=generator) < 0.5 if mirrored is None else mirrored)


def choose_mirrored(kind: AugmentName, records: int, seed: int, epoch: int) -> torch.Tensor | None:
    """Which records an epoch mirrors, for augmentations that alternate (Jordan, 2024, arXiv 2404.00498).

    A fair coin decides how a record is shown in the first epoch; then it is shown either way in turn, so that two
    epochs show every record both ways. Independent coins would show a half of the records twice the same.

    Args:
        kind: The augmentation.
        records: Number of training records.
        seed: Seed of the recipe.
        epoch: Number of the epoch, from 0.

    Returns:
        One bool per record; None for augmentations that draw flips anew for each batch.
    """
    if kind != "shift-flip":
        return None
    first = torch.rand(records, generator=make_generator(seed, "first flips")) < 0.5
    return first.logical_not() if epoch % 2 else first


def shift(images: torch.Tensor, downs: torch.Tensor, rights: torch.Tensor) -> torch.Tensor:
    """Shift each image, and fill the gap with its reflection at the border.

    Args:
        images: N×C×H×W.
        downs: N int64: pixels by which it moves down; negative values move it up.
        rights: N int64, likewise to the right. All shifts are smaller than the image.
    """
    reach = int(torch.stack([downs, rights]).abs().max()) if len(images) else 0
    for axis in (2, 3):
        last = images.shape[axis] - 1
        source = last - (last - torch.arange(-reach, last + 1 + reach).abs()).abs()
        images = images.index_select(axis, source.abs().to(images.device))
    return _cut_windows(images, reach - downs, reach - rights, reach)


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
    return _cut_windows(functional.pad(images, (padding, padding, padding, padding)), tops, lefts, padding)


def _cut_windows(padded: torch.Tensor, tops: torch.Tensor, lefts: torch.Tensor, padding: int) -> torch.Tensor:
    """Cut a window of each image that is smaller by ``padding`` on each side."""
    count, _, height, width = padded.shape
    windows = padded.unfold(2, height - 2 * padding, 1).unfold(3, width - 2 * padding, 1)  # N×C×(2p+1)×(2p+1)×H×W
    samples = torch.arange(count, device=padded.device)
    return windows[samples, :, tops.to(padded.device), lefts.to(padded.device)]


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images from left to right.

    Args:
        images: N×C×H×W.
        chosen: N bool.
    """
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
