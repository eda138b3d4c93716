"""Shadow models in the store: each is trained once for its data, training set, architecture, recipe, seed and defense.

They are stored in ``shadows/<key>/``; see `securitynet.models.store.cached_model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.store.cached_model import Epochs, ModelSpec, StoredModel, obtain_model
from securitynet.models.store.parallel import choose_thread_count, obtain_models
from securitynet.models.store.training_cost import check_training_cost
from securitynet.models.targets.signals import Progress
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense


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
    """Load a shadow model from the store, or train it if it is not there.

    Args:
        dataset: A dataset with square images.
        indices: Sorted training records, N int64, at least 2. Images are normalised by their mean and deviation.
        architecture: A name or a reference; see `securitynet.models.training.trainable`.
        recipe: The recipe, with the seed of this shadow model.
        defense: The target's training defense; None for none.
        cache: Folder of the store; None stores nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not part of the key.
        progress: Called after each epoch with the number of epochs done.

    Raises:
        ConfigurationError: If there are no images, too few records, or too few for the defense.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    return train_shadow(
        specify_shadow(dataset, indices, architecture, recipe, defense), cache=cache, device=device, progress=progress
    )


def specify_shadow(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    architecture: str,
    recipe: Recipe,
    defense: TrainingDefense | None = None,
    aside: NDArray[np.int64] | None = None,
    input_size: int | None = None,
) -> ModelSpec:
    """The specification of a shadow model.

    Args:
        dataset: A dataset with square images.
        indices: Sorted training records, N int64, at least 2.
        architecture: A name or a reference; see `securitynet.models.training.trainable`.
        recipe: The recipe, with the seed of this shadow model.
        defense: The target's training defense; None for none.
        aside: Records for the defense to set aside, as in `ModelSpec`.
        input_size: Height and width to which images are resized first; None keeps their size.
    """
    labels = dataset.labels[indices]
    return ModelSpec(
        dataset, indices, labels, dataset.num_classes, architecture, recipe, input_size, defense=defense, aside=aside
    )


def check_shadow(spec: ModelSpec) -> None:
    """Raise an error before any work if a shadow model cannot be trained like its target.

    Training it without the target's defense is no substitute: such a shadow model may make the target's records look
    safer or less safe than they are, and nothing in the result would show which.
    """
    try:
        spec.check()
    except ConfigurationError as error:
        if spec.defense is None:
            raise
        raise ConfigurationError(
            f"A shadow model with {len(spec.indices)} records can't be trained with the target's defense: "
            f"{error.message}",
            hint="Change the recipe of the shadow models, or how many records they get; or train them without the "
            'defense, which may understate the risk, with the setting defense = "none" of their training.',
        ) from error


def train_shadow(
    spec: ModelSpec, *, cache: Path | None = None, device: str = "auto", progress: Epochs | None = None
) -> StoredModel:
    """Load the shadow model of a specification from the store, or train it; errors as for `obtain_shadow`.

    Args:
        spec: Specification of the model.
        cache: Folder of the store; None stores nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not part of the key.
        progress: Called after each epoch with the number of epochs done.
    """
    check_shadow(spec)
    check_training_cost([spec], kind="shadows", cache=cache, device=device)
    return obtain_model(spec, kind="shadows", cache=cache, device=device, progress=progress)


def train_shadows(
    specs: Sequence[ModelSpec], *, cache: Path | None = None, device: str = "auto", progress: Progress | None = None
) -> Iterator[StoredModel]:
    """Load or train several shadow models of one dataset, in the order of their specifications.

    On a CPU as many are trained in parallel as `obtain_models` can; the models of one such group are in memory
    together, and those of the next are trained when the caller asks for them. All specifications are checked first.

    Args:
        specs: Specifications of the models.
        cache: Folder of the store; None stores nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not part of the key.
        progress: Called with (epochs done, epochs in all) over all models.

    Raises:
        SecurityNetError: If a model cannot be trained, as for `obtain_shadow`.
    """
    for spec in specs:
        check_shadow(spec)
    total = sum(spec.recipe.epochs for spec in specs)
    size = choose_thread_count(specs, device)
    before = 0
    for start in range(0, len(specs), size):
        group = specs[start : start + size]

        def report_progress(done: int, _in_group: int, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        yield from obtain_models(group, kind="shadows", cache=cache, device=device, progress=report_progress)
        before += sum(spec.recipe.epochs for spec in group)
