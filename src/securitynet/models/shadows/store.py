"""Shadow models in the store: each is trained once for its data, training set, architecture, recipe, seed and defense.

They lie in ``shadows/<key>/``; see `securitynet.models.store.cached_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.store.cached_model import Epochs, Job, check_images, obtain_model
from securitynet.models.targets.target import Target
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Protection

__all__ = ["Epochs", "Shadow", "check_images", "check_shadow", "obtain_shadow", "shadow_job", "trained_shadow"]


@dataclass(frozen=True, eq=False)
class Shadow:
    """A trained shadow model.

    Attributes:
        target: The model under white-box access, emitting logits.
        members: Sorted records that it was trained on, without those that early stopping held out, or that a defense
            took for something else.
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
    protection: Protection | None = None,
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
        protection: The target's defense, which it imitates; None for none.
        cache: Folder of the store; None keeps nothing.
        device: See `securitynet.models.store.cached_model.obtain_model`.
        progress: Called after each epoch.

    Raises:
        ConfigurationError: If there are no images, or too few records, or the defense can't be had with these.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    return trained_shadow(
        shadow_job(dataset, indices, architecture, recipe, protection), cache=cache, device=device, progress=progress
    )


def shadow_job(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    architecture: str,
    recipe: Recipe,
    protection: Protection | None = None,
    aside: NDArray[np.int64] | None = None,
) -> Job:
    """What is trained as a shadow model; arguments as for `obtain_shadow`, and records to set aside as for `Job`."""
    labels = dataset.labels[indices]
    return Job(dataset, indices, labels, dataset.num_classes, architecture, recipe, protection=protection, aside=aside)


def check_shadow(job: Job) -> None:
    """Raise an error before any work if a shadow model can't be trained like its target.

    It is no substitute to train it without the target's defense: such a shadow model says that the target's records
    are safer than they are, or the contrary, and nobody would know which.
    """
    try:
        job.check()
    except ConfigurationError as error:
        if job.protection is None:
            raise
        raise ConfigurationError(
            f"A shadow model with {len(job.indices)} records can't imitate the target's defense: {error.message}",
            hint="Change the recipe of the shadow models, or how many records they get; or train them without the "
            'defense, which may understate the risk, with the setting defense = "none" of their training.',
        ) from error


def trained_shadow(
    job: Job, *, cache: Path | None = None, device: str = "auto", progress: Epochs | None = None
) -> Shadow:
    """The shadow model of a job: see `obtain_shadow`."""
    check_shadow(job)
    model = obtain_model(job, kind="shadows", cache=cache, device=device, progress=progress)
    return Shadow(model.target, job.indices[model.kept], model.history)
