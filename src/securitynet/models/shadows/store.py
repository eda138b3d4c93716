"""Shadow models in the store: each is trained once for its data, training set, architecture, recipe, seed and defense.

They lie in ``shadows/<key>/``; see `securitynet.models.store.cached_model`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.store.cached_model import Epochs, ModelSpec, StoredModel, check_images, obtain_model
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense

__all__ = ["Epochs", "check_images", "check_shadow", "obtain_shadow", "shadow_spec", "train_shadow"]


def obtain_shadow(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    architecture: str,
    recipe: Recipe,
    *,
    defense: TrainingDefense | None = None,
    cache: Path | None = None,
    device: str = "auto",
    progress: Epochs | None = None,
) -> StoredModel:
    """The shadow model trained on these records: from the store if it is there, else trained now.

    Args:
        dataset: With square images.
        indices: Sorted training records, at least 2. Images are normalised by their mean and deviation.
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`.
        recipe: With the seed of this shadow model.
        defense: The target's defense, which it imitates; None for none.
        cache: Folder of the store; None keeps nothing.
        device: See `securitynet.models.store.cached_model.obtain_model`.
        progress: Called after each epoch.

    Raises:
        ConfigurationError: If there are no images, or too few records, or the defense can't be had with these.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    return train_shadow(
        shadow_spec(dataset, indices, architecture, recipe, defense), cache=cache, device=device, progress=progress
    )


def shadow_spec(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    architecture: str,
    recipe: Recipe,
    defense: TrainingDefense | None = None,
    aside: NDArray[np.int64] | None = None,
) -> ModelSpec:
    """The specification of a shadow model; arguments as for `obtain_shadow` and, for ``aside``, `ModelSpec`."""
    labels = dataset.labels[indices]
    return ModelSpec(dataset, indices, labels, dataset.num_classes, architecture, recipe, defense=defense, aside=aside)


def check_shadow(spec: ModelSpec) -> None:
    """Raise an error before any work if a shadow model can't be trained like its target.

    It is no substitute to train it without the target's defense: such a shadow model says that the target's records
    are safer than they are, or the contrary, and nobody would know which.
    """
    try:
        spec.check()
    except ConfigurationError as error:
        if spec.defense is None:
            raise
        raise ConfigurationError(
            f"A shadow model with {len(spec.indices)} records can't imitate the target's defense: {error.message}",
            hint="Change the recipe of the shadow models, or how many records they get; or train them without the "
            'defense, which may understate the risk, with the setting defense = "none" of their training.',
        ) from error


def train_shadow(
    spec: ModelSpec, *, cache: Path | None = None, device: str = "auto", progress: Epochs | None = None
) -> StoredModel:
    """The shadow model of a specification: see `obtain_shadow`."""
    check_shadow(spec)
    return obtain_model(spec, kind="shadows", cache=cache, device=device, progress=progress)
