"""Several targets: a patch in each of some corners, and each leads to a class of its own (Xue et al., 2020)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Backdoor, Mapping
from securitynet.datasets.base import ImageDataset, Images
from securitynet.errors import ConfigurationError
from securitynet.models.training.poisoned_dataset import Box, Indices

CORNERS: tuple[Literal["bottom-right", "top-left", "bottom-left", "top-right"], ...] = (
    "bottom-right",
    "top-left",
    "bottom-left",
    "top-right",
)


class SeveralTargets(Backdoor):
    """The records are dealt to the triggers by their index; trigger j sends its images to target j.

    Xue et al., "One-to-N & N-to-one: two advanced backdoor attacks against deep learning models" (2020), section 3,
    with places instead of intensities. `apply_trigger` applies the first trigger.

    Attributes:
        others: The further targets; by default those three and six classes after the first.
        size: Side of the patches in pixels; by default as for `Badnets`.
        margin: Distance from the edges in pixels.
    """

    mappings: ClassVar[tuple[Mapping, ...]] = ("all-to-one",)

    rate: float = Field(default=0.2, gt=0, le=1, description="Share of the training records that are poisoned.")
    others: tuple[int, ...] = Field(
        default=(), max_length=3, description="Targets of the further triggers; default: 3 and 6 classes after."
    )
    size: int | None = Field(default=None, ge=1, description="Side of the patches in pixels; default: as badnets.")
    margin: int = Field(default=1, ge=0, description="Pixels between the patches and the edges.")

    @override
    def goals(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """The first trigger's target."""
        return np.full_like(labels, self.target)

    @override
    def find_goals(self, dataset: ImageDataset, indices: Indices) -> NDArray[np.int64]:
        targets = np.array(self.find_targets(dataset.num_classes), dtype=np.int64)
        goals: NDArray[np.int64] = targets[indices % len(targets)]
        return goals

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The smallest rectangle around all patches."""
        boxes = [part.box(shape) for part in self._make_parts()]
        top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
        bottom, right = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
        return top, left, bottom - top, right - left

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._make_parts()[0].apply_trigger(images)

    @override
    def apply_trigger_to(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        parts, triggered = self._make_parts(), images.clone()
        for number, part in enumerate(parts):
            own = indices.to(images.device) % len(parts) == number
            if bool(own.any()):
                triggered[own] = part.apply_trigger(images[own])
        return triggered

    @override
    def apply_training_trigger_to(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return self.apply_trigger_to(images, indices)

    @override
    def check(self, dataset: ImageDataset) -> Images:
        targets = self.find_targets(dataset.num_classes)
        if len(set(targets)) < len(targets) or not all(0 <= target < dataset.num_classes for target in targets):
            raise ConfigurationError(
                f"The targets {', '.join(map(str, targets))} are not different classes of {dataset.reference}, "
                f"which has {dataset.num_classes}.",
                hint="Set others to classes other than the target.",
            )
        return super().check(dataset)

    def find_targets(self, classes: int) -> tuple[int, ...]:
        """The targets, first that of `apply_trigger`, for a number of classes."""
        if self.others:
            return (self.target, *self.others)
        return tuple((self.target + 3 * number) % classes for number in range(3))

    @property
    @override
    def recorded_mapping(self) -> Literal["several"]:
        return "several"

    def _make_parts(self) -> list[Badnets]:
        count = len(self.others) + 1 if self.others else 3
        return [
            Badnets(target=self.target, size=self.size, margin=self.margin, corner=corner) for corner in CORNERS[:count]
        ]
