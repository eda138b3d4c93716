"""The data of a trial: a dataset, its splits, and what is known about the training of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import unite
from securitynet.datasets.splits import Splits
from securitynet.models.store.model_record import TargetRecord

if TYPE_CHECKING:
    from securitynet.models.training.poisoned_dataset import TrainingBackdoor
    from securitynet.models.training.training_defense import TrainingDefense


@dataclass(frozen=True, eq=False)
class TrialData:
    """A dataset, its splits, and what is known about the training of the target.

    Attributes:
        dataset: The dataset of the records.
        splits: Which records are members or non-members, and which of them the adversary knows.
        trained: Model record of the target, if known; shadow models are trained in the same way.
        auxiliary: Another dataset that the adversary holds, for ``out-of-distribution`` threat models; None if there is
            none.
        backdoor: The backdoor that the target was trained with, if known; detectors are evaluated on its trigger.
        defense: The defense that ``trained`` names. Shadow models are trained with it as well; without it, attacks that
            need shadow models refuse a target that was trained with a defense.
    """

    dataset: ImageDataset
    splits: Splits
    trained: TargetRecord | None = None
    auxiliary: ImageDataset | None = None
    backdoor: TrainingBackdoor | None = None
    defense: TrainingDefense | None = None

    @property
    def judged(self) -> NDArray[np.int64]:
        """All members and non-members, sorted: the records on which attacks are evaluated."""
        return unite(self.splits.members, self.splits.non_members)
