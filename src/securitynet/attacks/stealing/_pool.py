"""The images that an adversary may query: the auxiliary data in a seeded random order, each image once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, SplitError
from securitynet.files import hash_stably
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.cached_model import check_images
from securitynet.models.targets.query_count import compute_image_keys
from securitynet.models.training.augment import augment
from securitynet.models.training.recipe import AugmentName
from securitynet.randomness import make_generator
from securitynet.records import Auxiliary

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Pool:
    """Images that may be queried.

    Attributes:
        dataset: Where they are, in the shape of the target's images.
        records: Their indices in a random order, without images that occur twice.
        labelled: Whether the labels are classes of the target.
    """

    dataset: ImageDataset
    records: NDArray[np.int64]
    labelled: bool


def make_pool(data: TrialData, context: Context, most: int | None, *, missing_classes: bool) -> Pool:
    """Return the auxiliary data of the threat model in use.

    Args:
        data: Data of the trial.
        context: Names the threat model and the seed of the order.
        most: Number of images wanted; None for all. A shorter pool is a prefix of a longer one.
        missing_classes: Whether partial and shadow data may lack classes of the target.

    Raises:
        ConfigurationError: If there are fewer images than wanted, or a class is missing.
        SplitError: If there are no images.
    """
    assert context.threat_model is not None  # `Method.__call__` sets it
    auxiliary = context.threat_model.auxiliary
    dataset, records, labelled = _source(data, auxiliary)
    check_images(dataset)
    if len(records) == 0:
        raise SplitError(
            f"The {data.splits.name} split has no {auxiliary.value} data to query.",
            hint="Use --split four-way." if auxiliary is Auxiliary.SHADOW else "Give the adversary some with --known.",
        )
    if labelled and not missing_classes:
        _check_classes(dataset, records, auxiliary)
    if most is not None and most > len(records):
        raise make_budget_error(most, len(records), auxiliary)
    order = records[shuffle(len(records), "stealing", context.seed)]
    distinct = _distinct(dataset, order, most)
    if most is not None and most > len(distinct):
        raise make_budget_error(most, len(distinct), auxiliary)
    return Pool(dataset, distinct, labelled)


def make_budget_error(budget: int, available: int, auxiliary: Auxiliary) -> ConfigurationError:
    """Create the error for a budget larger than the pool.

    Args:
        budget: Number of queries.
        available: Distinct images of the pool.
        auxiliary: Kind of data that the adversary holds.
    """
    return ConfigurationError(
        f"A budget of {budget:,} queries is more than the {available:,} distinct images of the {auxiliary.value} data.",
        hint="Lower the budget, or let the adversary know more (--known).",
    )


def add_copies(pool: Pool, copies: int, kind: AugmentName, most: int | None, seed: int) -> Pool:
    """Return a pool in which each image is followed by altered copies of it.

    Args:
        pool: The originals.
        copies: Number of copies of each image.
        kind: Kind of augmentation.
        most: Total number of images wanted; None for all.
        seed: Seed of the augmentation.
    """
    group = 1 + copies
    originals = len(pool.records) if most is None else min(len(pool.records), -(-2 * most // group))
    copies_kept: list[torch.Tensor] = []
    seen: set[bytes] = set()
    count = 0
    for number in range(originals):
        image = pool.dataset.batch(pool.records[number : number + 1])
        changes = make_generator(seed, f"stealing copies {kind}", number)
        rows = torch.cat([image, augment(image.repeat(copies, 1, 1, 1), kind, changes)])
        keys = compute_image_keys(rows)
        fresh = [at for at, key in enumerate(keys) if key not in seen and keys.index(key) == at]
        seen.update(keys)
        copies_kept.append(rows[fresh])
        count += len(fresh)
        if most is not None and count >= most:
            break
    images = torch.cat(copies_kept)[:most]
    made = wrap_images(images, f"changed copies of {pool.dataset.reference}")
    return Pool(made, np.arange(len(images), dtype=np.int64), False)


def wrap_images(images: torch.Tensor, name: str) -> ImageDataset:
    """Wrap generated images, N×C×H×W uint8, as a dataset without classes."""
    return ImageDataset(name, images, np.zeros(len(images), dtype=np.int64), ("image",), {})


class Reshaped:
    """Images converted to another shape on access: resized with antialiasing, grey to colour or back (Rec. 601)."""

    def __init__(self, inner: Images, channels: int, height: int, width: int) -> None:
        self._inner = inner
        self.shape = (int(inner.shape[0]), channels, height, width)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        images = self._inner[indices].float()
        _, channels, height, width = self.shape
        if images.shape[1] == 3 and channels == 1:
            images = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        if images.shape[-2:] != (height, width):
            images = functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
        return images.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1).contiguous()


def match_shape(auxiliary: ImageDataset, dataset: ImageDataset) -> ImageDataset:
    """Return the auxiliary dataset with its images in the shape of those of ``dataset``."""
    check_images(auxiliary)
    channels, height, width = dataset.image_shape
    if auxiliary.image_shape == (channels, height, width):
        return auxiliary
    assert auxiliary.images is not None  # checked above
    digest = hash_stably([auxiliary.fingerprint, channels, height, width, "bilinear"], 64)
    return replace(auxiliary, images=Reshaped(auxiliary.images, channels, height, width), content_digest=digest)


def _source(data: TrialData, auxiliary: Auxiliary) -> tuple[ImageDataset, NDArray[np.int64], bool]:
    if auxiliary is Auxiliary.PARTIAL:
        return data.dataset, data.splits.known_members, True
    if auxiliary is Auxiliary.SHADOW:
        return data.dataset, data.splits.shadow_train, True
    if data.auxiliary is None:
        raise ConfigurationError(
            "There is no out-of-distribution dataset to query.", hint="Name one with --auxiliary-dataset."
        )
    other = match_shape(data.auxiliary, data.dataset)
    return other, np.arange(len(other), dtype=np.int64), False


def _check_classes(dataset: ImageDataset, records: NDArray[np.int64], auxiliary: Auxiliary) -> None:
    present = np.bincount(dataset.labels[records], minlength=dataset.num_classes)
    absent = [dataset.class_names[number] for number in np.flatnonzero(present == 0)]
    if absent:
        raise ConfigurationError(
            f"The {auxiliary.value} data has no image of {len(absent)} of the target's {dataset.num_classes} classes: "
            f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}. A surrogate would hardly learn them.",
            hint="Give the adversary more records (--known), or set missing_classes=true to steal with these.",
        )


def _distinct(dataset: ImageDataset, order: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Return the records in order, without repeated images: querying an image twice would waste a query."""
    seen: set[bytes] = set()
    distinct: list[int] = []
    for start in range(0, len(order), _CHUNK):
        chosen = order[start : start + _CHUNK]
        for record, key in zip(chosen.tolist(), compute_image_keys(dataset.batch(chosen)), strict=True):
            if key not in seen:
                seen.add(key)
                distinct.append(record)
        if most is not None and len(distinct) >= most:
            break
    return np.asarray(distinct[:most], dtype=np.int64)
