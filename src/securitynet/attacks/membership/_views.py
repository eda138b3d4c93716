"""Views of records: mirrored and shifted copies with which models are queried besides the record itself.

Carlini et al., "Membership inference attacks from first principles" (2022), section 5.4: a model that was trained with
augmentation has seen such copies of its members, so each of them is a further observation. The views follow the
augmentation of the training recipe. A view is a dataset of its own, so its outputs are cached and counted like others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from securitynet.datasets.base import ImageDataset, Images
from securitynet.errors import ConfigurationError
from securitynet.files import hash_stably
from securitynet.models.training.augment import crop_padding
from securitynet.models.training.recipe import AugmentName

MOST_QUERIES = 32
"""Largest number of queries for each record."""

FARTHEST_SHIFT = 2
"""Largest shift, in pixels, of images on which the model was trained without shifting them."""


@dataclass(frozen=True)
class View:
    """How a copy differs from the record.

    Attributes:
        down: Pixels by which it is shifted down; negative values shift up.
        right: Pixels by which it is shifted right; negative values shift left.
        mirrored: Whether it is mirrored from left to right first.
        black: Whether black fills the gap, as in training with crops; the nearest row or column otherwise.
    """

    down: int = 0
    right: int = 0
    mirrored: bool = False
    black: bool = False

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Return the copies of images, N×C×H×W of any type."""
        height, width = images.shape[2:]
        rows, columns = torch.arange(height) - self.down, torch.arange(width) - self.right
        copies = images.flip(3) if self.mirrored else images
        copies = copies[:, :, rows.clamp(0, height - 1)][:, :, :, columns.clamp(0, width - 1)]
        if self.black:
            inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
            copies = copies * inside
        return copies


def list_views(augment: AugmentName, height: int, width: int) -> list[View]:
    """List the views of images that a model was trained on with an augmentation; the first is the record itself.

    With ``crop-flip``, they are the crops of training, each also mirrored; with ``flip`` and ``shift-flip``, the record
    and its mirror image, then both shifted slightly; with ``none``, slightly shifted copies.

    Args:
        augment: Augmentation of the training recipe.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """
    black = augment == "crop-flip"
    farthest = crop_padding(height, width) if black else min(FARTHEST_SHIFT, max(1, min(height, width) // 8))
    # Middle shifts first: copies that hardly differ from the record repeat what it shows already.
    distances = sorted(range(1, farthest + 1), key=lambda distance: abs(2 * distance - farthest))
    shifts = [(0, 0)]
    for distance in distances:
        shifts += [(down * distance, right * distance) for down, right in _NEIGHBOURS]
    mirrors = (False,) if augment == "none" else (False, True)
    return [View(down, right, mirrored, black) for down, right in shifts for mirrored in mirrors]


def make_views(dataset: ImageDataset, augment: AugmentName, count: int) -> tuple[ImageDataset, ...]:
    """Return the dataset and ``count - 1`` copies of it with changed images.

    Args:
        dataset: With images, unless ``count`` is 1.
        augment: Augmentation of the training recipe.
        count: Number of views, at least 1.

    Raises:
        ConfigurationError: If there are no images, or fewer views of them.
    """
    if count == 1:
        return (dataset,)
    if dataset.images is None:
        raise ConfigurationError(
            "Recorded outputs hold no images, so there are no views of them to query.", hint="Set queries to 1."
        )
    _, height, width = dataset.image_shape
    views = list_views(augment, height, width)
    if count > len(views):
        raise ConfigurationError(
            f"Images of {height}×{width} pixels have {len(views)} views under the augmentation {augment!r}, "
            f"fewer than {count}.",
            hint=f"Set queries to {len(views)} or less.",
        )
    return (dataset, *(_viewed(dataset, dataset.images, view) for view in views[1:count]))


def make_view(dataset: ImageDataset, view: View) -> ImageDataset:
    """Return a copy of the dataset with changed images; the dataset itself if the view changes nothing.

    Args:
        dataset: With images.
        view: How the copies differ from the records.

    Raises:
        ConfigurationError: If there are no images.
    """
    if view == View():
        return dataset
    if dataset.images is None:
        raise ConfigurationError("Recorded outputs hold no images, so no changed copies of them can be queried.")
    return _viewed(dataset, dataset.images, view)


class _ViewedImages:
    """Images that are changed when they are fetched."""

    def __init__(self, images: Images, view: View) -> None:
        self._images = images
        self._view = view

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self._images.shape)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        return self._view.apply(self._images[indices])


def _viewed(dataset: ImageDataset, images: Images, view: View) -> ImageDataset:
    digest = hash_stably({"dataset": dataset.fingerprint, "view": vars(view)})
    return replace(dataset, images=_ViewedImages(images, view), content_digest=digest)


_NEIGHBOURS: Sequence[tuple[int, int]] = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
