"""Shadow models in the store: each is trained once for its data, training set, architecture, recipe and seed.

They lie in ``shadows/<key>/``; see `securitynet.models.stored`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.models.recipe import Recipe
from securitynet.models.stored import Epochs, Job, check_images, obtain_model
from securitynet.models.target import Target
from securitynet.models.training import History

__all__ = ["Epochs", "Shadow", "check_images", "obtain_shadow"]


@dataclass(frozen=True, eq=False)
class Shadow:
    """A trained shadow model.

    Attributes:
        target: The model under white-box access, emitting logits.
        members: Sorted records that it was trained on, without those that early stopping held out.
        history: Of its training.
    """

    target: Target
    members: NDArray[np.int64]
    history: History


def obtain_shadow(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    architecture: str,
    recipe: Recipe,
    *,
    cache: Path | None = None,
    device: str = "auto",
    progress: Epochs | None = None,
) -> Shadow:
    """The shadow model trained on these records: from the store if it is there, else trained now.

    Args:
        dataset: With square images.
        indices: Sorted training records, at least 2. Images are normalised by their mean and deviation.
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`.
        recipe: With the seed of this shadow model.
        cache: Folder of the store; None keeps nothing.
        device: See `securitynet.models.stored.obtain_model`.
        progress: Called after each epoch.

    Raises:
        ConfigurationError: If there are no images, or too few records.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    job = Job(dataset, indices, dataset.labels[indices], dataset.num_classes, architecture, recipe)
    model = obtain_model(job, kind="shadows", cache=cache, device=device, progress=progress)
    return Shadow(model.target, indices[model.kept], model.history)
