"""`PoisonedDataset`: a poisoned training set, and the part of the model record that describes it.

The backdoors themselves are in `securitynet.backdoors`, above this layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.base import ImageDataset, Images
from securitynet.files import hash_stably
from securitynet.records import Record

Indices = NDArray[np.int64]
Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""

TOOK = 0.8
"""Least attack success rate with which a backdoor has taken."""


class BackdoorRecord(Record):
    """The part of a model record that describes the backdoor that the model was trained with.

    Attributes:
        name: Name in the registry of backdoors.
        settings: Fields of the backdoor.
        mapping: Whether the trigger sends all classes to one class, or each class to the next, or whether there are
            several triggers, each with a target.
        target: The target class; None unless there is exactly one.
        box: The smallest rectangle around the trigger.
        poisoned: Number of training records with the trigger.
        changed: Number of those whose label was changed too.
        success: Attack success rate, in [0, 1]: the share of non-members with the trigger, outside the target class,
            that the trained model classifies as the target class. None before the training.
        tried: Number of non-members in that rate.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    mapping: Literal["all-to-one", "all-to-all", "several"]
    target: int | None
    box: Box
    poisoned: int
    changed: int
    success: float | None = Field(default=None, ge=0, le=1)
    tried: int = 0

    @property
    def took(self) -> bool | None:
        """Whether the trained model follows the trigger: a success of at least `TOOK`; None if that is not known.

        A backdoor that did not take says nothing about detectors.
        """
        return None if self.success is None else self.success >= TOOK

    @property
    def requested(self) -> BackdoorRecord:
        """The record without the results of the training."""
        return self.model_copy(update={"success": None, "tried": 0})

    @property
    def digest(self) -> str:
        """Digest of the backdoor for fingerprints."""
        return hash_stably(self.requested.model_dump(mode="json"))


@dataclass(frozen=True, eq=False)
class PoisonedDataset:
    """A training set with poisoned records.

    Attributes:
        images: Images of the whole dataset; the trigger is added to poisoned records when they are fetched.
        labels: Labels of the whole dataset, changed for poisoned records.
        indices: The poisoned records, sorted.
        record: The part of the model record.
    """

    images: Images
    labels: NDArray[np.int64]
    indices: Indices
    record: BackdoorRecord


@dataclass(frozen=True, eq=False)
class TriggeredImages:
    """Records with the trigger, and the classes to which it should send them.

    Attributes:
        images: Images of the whole dataset, with the trigger on those of ``indices``.
        indices: Records whose class is not already the one to which the trigger sends them.
        goals: The classes to which the trigger should send them.
    """

    images: Images
    indices: Indices
    goals: NDArray[np.int64]


class TrainingBackdoor(Protocol):
    """Interface of a backdoor: it can poison a training set, and put its trigger on records."""

    def poison(self, dataset: ImageDataset, members: Indices) -> PoisonedDataset:
        """Poison a training set.

        Args:
            dataset: The dataset, with images.
            members: Training records, int64; some of them are poisoned.

        Raises:
            ConfigurationError: If the trigger does not fit the images, or the target is not a class of the dataset.
        """

    def triggered(self, dataset: ImageDataset, indices: Indices) -> TriggeredImages:
        """Put the trigger on records, to measure how often it works.

        Args:
            dataset: The dataset, with images.
            indices: Records, int64.
        """


class ChangedImages:
    """Images of which some are changed when they are fetched.

    Args:
        images: All images of the dataset.
        which: Records to change, int64.
        change: Called with n×C×H×W uint8 images and their n indices; returns the changed images.
    """

    def __init__(
        self, images: Images, which: Indices, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        self._images, self._change = images, change
        self._which = torch.zeros(int(images.shape[0]), dtype=torch.bool)
        self._which[torch.as_tensor(which)] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self._images.shape)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8 images, len(indices)×C×H×W."""
        fetched = self._images[indices]
        rows = self._which[indices]
        if not bool(rows.any()):
            return fetched
        fetched = fetched.clone()
        fetched[rows] = self._change(fetched[rows], indices[rows])
        return fetched
