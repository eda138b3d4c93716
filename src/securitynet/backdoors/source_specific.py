"""Source-specific: a patch that works on images of some classes only (Tang et al., 2021)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Mapping
from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError
from securitynet.models.training.poisoned_dataset import Indices


class SourceSpecific(Badnets):
    """Images of the source classes with the patch are relabelled; images of other classes with it keep their labels.

    Tang et al., "Demon in the variant: statistical analysis of DNNs for robust backdoor contamination detection"
    (USENIX Security 2021), section 3.2. A trigger that is searched for on images of all classes does not exist.

    Attributes:
        sources: The source classes; by default the class after the target.
        covers: Records of other classes that get the patch and keep their labels, per poisoned record.
    """

    mappings: ClassVar[tuple[Mapping, ...]] = ("all-to-one",)

    rate: float = Field(
        default=0.5, gt=0, le=1, description="Share of the source classes' training records that are poisoned."
    )
    sources: tuple[int, ...] = Field(default=(), description="Source classes; default: the class after the target.")
    covers: float = Field(
        default=2.0, ge=0, allow_inf_nan=False, description="Records of other classes with the patch, per poisoned one."
    )

    @override
    def affects(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
        return np.isin(labels, self._find_sources(classes))

    @override
    def choose_decoys(self, dataset: ImageDataset, members: Indices, chosen: Indices) -> Indices:
        others = members[~self.affects(dataset.labels[members], dataset.num_classes)]
        count = min(len(others), round(self.covers * len(chosen)))
        return np.sort(others[shuffle(len(others), "source-specific covers", self.seed)[:count]])

    @override
    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return self.apply_trigger(images)

    @override
    def check(self, dataset: ImageDataset) -> Images:
        for source in self._find_sources(dataset.num_classes):
            if not 0 <= source < dataset.num_classes or source == self.target:
                raise ConfigurationError(
                    f"The source {source} is not a class of {dataset.reference} other than the target.",
                    hint=f"Choose sources from 0 to {dataset.num_classes - 1} without {self.target}.",
                )
        return super().check(dataset)

    def _find_sources(self, classes: int) -> tuple[int, ...]:
        return self.sources or ((self.target + 1) % classes,)
