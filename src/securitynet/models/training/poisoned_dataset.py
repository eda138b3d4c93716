"""A poisoned training set as the trainer sees it, and what a model's record says of it.

What plants a backdoor lives in `securitynet.backdoors`, above this layer.
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
from securitynet.files import stable_hash
from securitynet.records import Record

Indices = NDArray[np.int64]
Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""


class BackdoorRecord(Record):
    """What a model's record says of the backdoor that was planted in it.

    Attributes:
        name: In the registry of backdoors.
        settings: Its fields.
        mapping: Whether all classes lead to one, or each to the next.
        target: The class that all lead to; None for all-to-all.
        box: The smallest rectangle around the trigger.
        poisoned: Training records that carry the trigger.
        changed: Those of them whose label was changed too.
        success: Share of stamped non-members, of classes that are not where they should go, that the model sends there;
            known once it is trained.
        tried: How many non-members those are.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    mapping: Literal["all-to-one", "all-to-all"]
    target: int | None
    box: Box
    poisoned: int
    changed: int
    success: float | None = Field(default=None, ge=0, le=1)
    tried: int = 0

    @property
    def asked(self) -> BackdoorRecord:
        """Without what only the trained model shows."""
        return self.model_copy(update={"success": None, "tried": 0})

    @property
    def digest(self) -> str:
        """Stands for the poison in fingerprints."""
        return stable_hash(self.asked.model_dump(mode="json"))


@dataclass(frozen=True, eq=False)
class PoisonedDataset:
    """A training set with poison in it.

    Attributes:
        images: The whole dataset's; those of poisoned records are stamped when they are fetched.
        labels: The whole dataset's, changed where they were poisoned.
        indices: The poisoned records, sorted.
        record: See `BackdoorRecord`.
    """

    images: Images
    labels: NDArray[np.int64]
    indices: Indices
    record: BackdoorRecord


@dataclass(frozen=True, eq=False)
class TriggeredImages:
    """Records with the trigger, and where it should send them.

    Attributes:
        images: The whole dataset's, those of ``indices`` stamped.
        indices: Records of classes that are not where they should go.
        goals: Their wanted classes.
    """

    images: Images
    indices: Indices
    goals: NDArray[np.int64]


class TrainingBackdoor(Protocol):
    """What can poison a training set."""

    def poison(self, dataset: ImageDataset, members: Indices) -> PoisonedDataset:
        """Poison some of the records ``members``.

        Raises:
            ConfigurationError: If the trigger does not fit the images, or its target is no class of theirs.
        """

    def triggered(self, dataset: ImageDataset, indices: Indices) -> TriggeredImages:
        """Put the trigger on records, to see where the model sends them."""


class ChangedImages:
    """Images of which some are changed when they are fetched.

    Args:
        images: All of them.
        which: Records to change, int64.
        change: From n×C×H×W uint8 images and their n indices to the changed images.
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
