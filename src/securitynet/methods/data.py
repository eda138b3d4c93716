"""The data of a trial: a dataset, who is who in it, and what else is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import union
from securitynet.datasets.splits import Splits
from securitynet.models.store.model_record import TargetRecord

if TYPE_CHECKING:
    from securitynet.models.training.poisoned_dataset import TrainingBackdoor
    from securitynet.models.training.training_defense import TrainingDefense


@dataclass(frozen=True, eq=False)
class TrialData:
    """A dataset, who is who in it, and what else is known.

    Attributes:
        dataset: Where the records are.
        splits: Who is a member, and what the adversary knows.
        trained: How the target was trained, where that is known: shadow models are trained likewise.
        auxiliary: Another dataset that the adversary holds, for ``out-of-distribution`` threat models; None if there is
            none.
        defense: The defense that ``trained`` names: shadow models are trained with it as well. Without it, attacks
            that need them refuse a target that was trained with a defense.
        backdoor: The backdoor that the target was trained with, where that is known: detectors are then judged on its
            trigger.
    """

    dataset: ImageDataset
    splits: Splits
    trained: TargetRecord | None = None
    auxiliary: ImageDataset | None = None
    backdoor: TrainingBackdoor | None = None
    defense: TrainingDefense | None = None

    @property
    def judged(self) -> NDArray[np.int64]:
        """All members and non-members, sorted: the records on which attacks are judged."""
        return union(self.splits.members, self.splits.non_members)
