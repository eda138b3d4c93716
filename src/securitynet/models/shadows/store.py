"""The store of shadow models: each is trained once for its data, training set, architecture, recipe and seed.

A shadow model lies in ``shadows/<key>/``: ``weights.safetensors``, ``shadow.json`` (written last: with it the model is
complete) and, while it is being trained, a checkpoint from which a killed run goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.locks import exclusive
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import atomic_write, file_checksum, stable_hash, write_json
from securitynet.models.architectures.factory import build
from securitynet.models.backends.module import ModuleBackend
from securitynet.models.preprocessing import Preprocessing
from securitynet.models.recipe import Recipe
from securitynet.models.target import Target
from securitynet.models.trainer.checkpoints import CheckpointFile
from securitynet.models.trainer.environment import resolve_device
from securitynet.models.trainer.randomness import derived_seed, isolated
from securitynet.models.trainer.statistics import standardising
from securitynet.models.training import History, fit, held_out
from securitynet.models.weights import read_state_dict, state_checksum
from securitynet.records import Access, Record

logger = logging.getLogger(__name__)

Epochs = Callable[[int], None]
"""Called with the number of epochs done."""


class ShadowFacts(Record):
    """What ``shadow.json`` says.

    Attributes:
        format: Tells this file from other JSON files.
        version: Of this list of fields, and of the code that trains: raising it retires all earlier shadow models.
        dataset: Fingerprint of the dataset.
        training_set: SHA-256 of the sorted indices of the training records.
        records: How many there are.
        architecture: Name in the registry.
        recipe: With its seed and its version.
        preprocessing: Between images in [0, 1] and the network.
        history: What happened in each epoch.
        weights_checksum: SHA-256 of the weights file.
    """

    format: Literal["securitynet-shadow-model"] = "securitynet-shadow-model"
    version: Literal[1] = 1
    dataset: str
    training_set: str
    records: int
    architecture: str
    recipe: Recipe
    preprocessing: Preprocessing
    history: History = History()
    weights_checksum: str = ""

    @property
    def key(self) -> str:
        """Name of its folder: a digest of all that decides its weights."""
        return stable_hash(self.model_dump(mode="json", exclude={"history", "weights_checksum"}))


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
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. It is not part of the key: a model that was trained
            elsewhere is used as it is.
        progress: Called after each epoch.

    Raises:
        ConfigurationError: If there are no images, or too few records.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    check_images(dataset)
    if len(indices) < 2:
        raise ConfigurationError(f"{len(indices)} records are too few to train a shadow model on.")
    channels, size, _ = dataset.image_shape
    facts = ShadowFacts(
        dataset=dataset.fingerprint,
        training_set=hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        records=len(indices),
        architecture=architecture,
        recipe=recipe,
        preprocessing=standardising(dataset, indices),
    )
    with isolated():
        torch.manual_seed(derived_seed(recipe.seed, "initial weights"))
        network = build(architecture, dataset.num_classes, channels, size)
    folder = None if cache is None else cache / "shadows" / facts.key
    with contextlib.nullcontext() if folder is None else exclusive(folder / "lock"):
        found = None if folder is None else _read(folder, facts, network)
        if found is None:
            found = _train(network, dataset, indices, facts, folder, device, progress)
    place = resolve_device(device)
    backend = ModuleBackend(
        network,
        reference=f"arch:{architecture}",
        checksum=state_checksum(network.state_dict(), architecture),
        example_shape=(channels, size, size),
        device=place,
    )
    backend.num_classes = dataset.num_classes
    members = indices[held_out(len(indices), recipe)[0]] if recipe.patience else indices
    return Shadow(Target(backend, preprocessing=facts.preprocessing, access=Access.WHITE_BOX), members, found.history)


def check_images(dataset: ImageDataset) -> None:
    """Raise an error unless shadow models can be trained on the images of a dataset."""
    if dataset.images is None:
        raise ConfigurationError(
            f"{dataset.reference} holds recorded outputs and no images, so no shadow models can be trained.",
            hint="Give the images with --dataset.",
        )
    _, height, width = dataset.image_shape
    if height != width:
        raise ModelError(
            f"The architectures take square images; those of {dataset.reference} are {height}×{width}.",
            hint="Resize them with --image-size N.",
        )


def _train(
    network: nn.Module,
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    facts: ShadowFacts,
    folder: Path | None,
    device: str,
    progress: Epochs | None,
) -> ShadowFacts:
    images = dataset.images
    assert images is not None  # `check_images` has raised otherwise
    checkpoint = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
    history = fit(
        network,
        images,
        dataset.labels[indices],
        facts.recipe,
        indices=indices,
        preprocessing=facts.preprocessing,
        checkpoint=None if checkpoint is None else checkpoint.path,
        data_fingerprint=facts.key,
        device=device,
        progress=(lambda done, _total, _history: progress(done)) if progress else None,
    )
    facts = facts.model_copy(update={"history": history})
    if folder is None or checkpoint is None:
        return facts
    state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    weights = folder / "weights.safetensors"
    with atomic_write(weights) as stream:
        stream.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    facts = facts.model_copy(update={"weights_checksum": file_checksum(weights)})
    write_json(folder / "shadow.json", facts.model_dump(mode="json"))
    checkpoint.remove()
    return facts


def _read(folder: Path, wanted: ShadowFacts, network: nn.Module) -> ShadowFacts | None:
    """Put the stored weights into the network; None if they are absent or damaged (which is logged)."""
    try:
        facts = ShadowFacts.model_validate(json.loads((folder / "shadow.json").read_text(encoding="utf-8")))
        weights = folder / "weights.safetensors"
        if facts.key == wanted.key and file_checksum(weights) == facts.weights_checksum:
            network.load_state_dict(read_state_dict(weights)[0])
            return facts
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        logger.debug("%s: %s", folder.name, error)
    logger.warning("A stored shadow model is damaged and is trained again: %s", folder.name)
    return None
