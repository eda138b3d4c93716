"""Canaries: records that are made for an audit, each trained on if its own fair coin says so.

A canary takes the place of a record of the training set: a mislabelled or natural one is that record, an
out-of-distribution one or one of the user's has an image of its own. Canaries whose coin says no are not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

import securitynet.datasets
from securitynet.datasets.base import ImageDataset, Images
from securitynet.errors import ConfigurationError
from securitynet.files import hash_stably
from securitynet.models.training.poisoned_dataset import ChangedImages
from securitynet.models.training.recipe import Recipe
from securitynet.records import DatasetIdentity, Record

Indices = NDArray[np.int64]
CanaryKind = Literal["mislabelled", "natural", "out-of-distribution", "own"]


class CanaryRecord(Record):
    """The part of a model record that describes the canaries of the training.

    Attributes:
        kind: ``mislabelled``: a record with a wrong label, drawn at random; ``natural``: an unchanged record;
            ``out-of-distribution``: uniform noise with a random label; ``own``: an image and label of the user's.
        seed: Seed from which records, labels, noise and coins were drawn; derived from dataset, split and recipe.
        records: Records of the dataset that the canaries replace, sorted.
        labels: Labels of the canaries, in the same order.
        included: The coins: whether each canary was trained on.
        source: Dataset of the user's canaries; None for other kinds.
    """

    kind: CanaryKind
    seed: int = Field(ge=0)
    records: tuple[int, ...]
    labels: tuple[int, ...]
    included: tuple[bool, ...]
    source: DatasetIdentity | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> CanaryRecord:
        if not len(self.records) == len(self.labels) == len(self.included):
            raise ValueError("records, labels and coins of the canaries differ in number")
        return self

    @property
    def indices(self) -> Indices:
        """Records of the dataset that the canaries replace, int64."""
        return np.asarray(self.records, dtype=np.int64)

    @property
    def excluded(self) -> Indices:
        """Records of the dataset whose canaries were not trained on, int64."""
        return np.asarray(
            [index for index, coin in zip(self.records, self.included, strict=True) if not coin], dtype=np.int64
        )

    @property
    def digest(self) -> str:
        """Digest of the canaries for fingerprints."""
        return hash_stably(self.model_dump(mode="json"))


@dataclass(frozen=True, eq=False)
class CanaryPlan:
    """The canaries that a training is to have.

    Attributes:
        count: Number of canaries.
        kind: See `CanaryRecord`.
        own: The user's canaries, for the kind ``own``, in the shape of the dataset's images.
    """

    count: int
    kind: CanaryKind = "mislabelled"
    own: ImageDataset | None = None


@dataclass(frozen=True, eq=False)
class DatasetWithCanaries:
    """A dataset in which canaries have taken the place of records.

    Attributes:
        images: Images of the whole dataset; those of canaries are replaced when they are fetched.
        labels: Labels of the whole dataset, N int64.
        record: The part of the model record.
    """

    images: Images
    labels: NDArray[np.int64]
    record: CanaryRecord


def draw_canaries(plan: CanaryPlan, dataset: ImageDataset, members: Indices, identity: Any) -> CanaryRecord:
    """Choose the records that canaries replace, their labels, and their coins.

    Args:
        plan: How many canaries of which kind.
        dataset: The dataset of the training.
        members: The records that would be trained on without canaries, int64.
        identity: What the seed is derived from, as JSON types. The same values give the same canaries.

    Raises:
        ConfigurationError: If there are too few records, or the user's canaries do not fit the dataset.
    """
    kind, count, own = plan.kind, plan.count, plan.own
    classes = dataset.num_classes
    largest = len(members) - max(2, classes)
    if count > largest:
        raise ConfigurationError(
            f"{count} canaries cannot replace records of a training set of {len(members)}.",
            hint=f"Choose at most {max(largest, 0)}, or train on more records.",
        )
    if kind == "mislabelled" and classes < 2:
        raise ConfigurationError("Mislabelled canaries need at least two classes.")
    if (kind == "own") != (own is not None):
        raise ConfigurationError(
            "Canaries of the kind own need images, and other kinds need none.",
            hint="Give --canary-kind own together with --canary-images DATASET.",
        )
    seed = int(hash_stably(["canaries", kind, count, identity], 12), 16)
    # One stream per purpose, so that the coins depend on nothing else that is drawn.
    chosen = np.sort(_stream(seed, "records").permutation(members)[:count]).astype(np.int64)
    coins = _stream(seed, "coins").integers(0, 2, size=count).astype(bool)
    draws = _stream(seed, "labels")
    labels = dataset.labels[chosen]
    if kind == "mislabelled":
        labels = (labels + draws.integers(1, classes, size=count)) % classes
    elif kind == "out-of-distribution":
        labels = draws.integers(0, classes, size=count)
    elif own is not None:
        _check_own(own, count, dataset)
        labels = own.labels[:count]
    return CanaryRecord(
        kind=kind,
        seed=seed,
        records=tuple(map(int, chosen)),
        labels=tuple(map(int, labels)),
        included=tuple(map(bool, coins)),
        source=None if own is None else DatasetIdentity(reference=own.reference, fingerprint=own.fingerprint),
    )


def place_canaries(record: CanaryRecord, dataset: ImageDataset, own: ImageDataset | None = None) -> DatasetWithCanaries:
    """Put canaries into a dataset; those that are not included as well.

    Args:
        record: The canaries.
        dataset: The dataset that they were drawn for, with images.
        own: The user's canaries, for the kind ``own``.

    Raises:
        ConfigurationError: If ``own`` is not the dataset that the record names.
    """
    labels = dataset.labels.copy()
    labels[record.indices] = record.labels
    images = dataset.images
    assert images is not None  # the caller has read the shape of the images
    if record.source is not None:
        if own is None or own.fingerprint != record.source.fingerprint:
            raise ConfigurationError(
                f"The canaries of this model are images of {record.source.reference}, which are not those given.",
                hint="Give the same --canary-images as for the training.",
            )
        replacements = own.batch(np.arange(len(record.records), dtype=np.int64))
        images = _replaced(images, record.indices, replacements)
    elif record.kind == "out-of-distribution":
        images = _replaced(images, record.indices, _draw_noise(record, dataset.image_shape))
    return DatasetWithCanaries(images, labels, record)


def load_canary_images(reference: str, dataset: ImageDataset) -> ImageDataset:
    """Load the user's canaries in the shape of a dataset's images.

    Args:
        reference: Reference of the canaries.
        dataset: The dataset of the training.

    Raises:
        SecurityNetError: If they cannot be loaded.
    """
    channels, height, width = dataset.image_shape
    size = height if height == width else None  # datasets are resized to squares only
    return securitynet.datasets.load(reference, channels=3 if channels == 3 else 1, size=size)


def check_combination(recipe: Recipe, share_aside: float, *, with_backdoor: bool) -> None:
    """Check that a training can have canaries.

    Args:
        recipe: The recipe.
        share_aside: Share of the training records that a defense sets aside.
        with_backdoor: Whether the training has a backdoor.

    Raises:
        ConfigurationError: If it cannot.
    """
    problems = {
        "early stopping, which would hold some of them out (--patience)": recipe.patience > 0,
        "a defense that sets training records aside": share_aside > 0,
        "a backdoor": with_backdoor,
    }
    for what, is_wrong in problems.items():
        if is_wrong:
            raise ConfigurationError(f"Canaries cannot be combined with {what}.", hint="Train without it.")


def _replaced(images: Images, which: Indices, replacements: torch.Tensor) -> Images:
    """Images in which those at sorted indices are replaced."""
    sorted_indices = torch.as_tensor(which)

    def replace(fetched: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return replacements[torch.searchsorted(sorted_indices, indices.cpu())].to(fetched)

    return ChangedImages(images, which, replace)


def _draw_noise(record: CanaryRecord, shape: tuple[int, int, int]) -> torch.Tensor:
    """Uniform noise, n×C×H×W uint8."""
    values = _stream(record.seed, "noise").integers(0, 256, size=(len(record.records), *shape), dtype=np.uint8)
    return torch.from_numpy(values)


def _check_own(own: ImageDataset, count: int, dataset: ImageDataset) -> None:
    problems = {
        f"it has {len(own)} images for {count} canaries": len(own) < count,
        f"its images are {own.image_shape} and those of the dataset {dataset.image_shape} (channels, height, width)": (
            own.image_shape != dataset.image_shape
        ),
        f"its labels go up to {int(own.labels.max())}, and the dataset has {dataset.num_classes} classes": (
            int(own.labels.max()) >= dataset.num_classes
        ),
    }
    wrong = [problem for problem, is_there in problems.items() if is_there]
    if wrong:
        raise ConfigurationError(f"{own.reference} cannot be used as canaries: {'; '.join(wrong)}.")


def _stream(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(int(hash_stably([seed, purpose], 16), 16))
