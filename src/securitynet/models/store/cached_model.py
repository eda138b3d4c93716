"""The store of trained models: shadow models and surrogates, each trained once for what determines its weights.

A model lies in ``<kind>/<key>/``: ``weights.safetensors``, ``weights.json`` (written last, so the model is complete if
it exists) and, during the training, a checkpoint from which a killed run resumes. The weights can be loaded as a
target: ``securitynet assess arch:NAME --weights <kind>/<key>/weights.safetensors``. Its preprocessing is read from the
record beside them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.locks import hold_file_lock
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError
from securitynet.files import check_digest, file_checksum
from securitynet.models.sources.weights import read_state_dict, state_checksum
from securitynet.models.store.model_record import CachedModelRecord
from securitynet.models.store.record_files import R, locate_model_record, save_trained_model
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import Architecture, find_architecture, shorten_size
from securitynet.models.training.training_defense import (
    NO_DEFENSE,
    Fitting,
    Parts,
    TrainingDefense,
    assign_roles,
    train_with_defense,
)
from securitynet.randomness import derive_seed, isolate_random_state, seed_global_state
from securitynet.records import Access
from securitynet.untrusted import parse_json, read_bytes

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"

Epochs = Callable[[int], None]
"""Called with the number of epochs done."""


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """Everything that determines a model of the store.

    Attributes:
        dataset: A dataset with images.
        indices: Training records, N int64, at least 2. Images are normalised by their mean and deviation.
        targets: Labels, N int64, or posteriors, N×K float32.
        num_classes: K.
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`, or a reference to a network of another
            library (``timm:resnet18``, ``python:FILE:FACTORY``), which is trained from new initial weights.
        recipe: The recipe, with the seed of this model.
        input_size: Height and width to which images are resized before the network; None keeps their size, but for
            images that are not square and networks that get squares: see `Architecture.choose_input_sides`.
        defense: The defense to train with, on labels; None for none. It changes the recipe, and may use some of the
            records for another purpose than training.
        aside: Records that the defense uses instead, A int64, none of them in ``indices``; all of ``indices`` are then
            used for training.
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    targets: NDArray[np.int64] | NDArray[np.float32]
    num_classes: int
    architecture: str
    recipe: Recipe
    input_size: int | None = None
    defense: TrainingDefense | None = None
    aside: NDArray[np.int64] | None = None

    @functools.cached_property
    def built(self) -> Architecture:
        """The architecture.

        Raises:
            SecurityNetError: See `find_architecture`.
        """
        return find_architecture(self.architecture)

    @property
    def applied_defense(self) -> TrainingDefense:
        """The defense; without one, `NO_DEFENSE`, which changes nothing."""
        return self.defense or NO_DEFENSE

    @property
    def changed_recipe(self) -> Recipe:
        """The recipe as the defense changes it."""
        return self.applied_defense.change_recipe(self.recipe)

    @property
    def parts(self) -> Parts:
        """The roles of the records."""
        recipe = self.changed_recipe
        if self.aside is None:
            return assign_roles(self.applied_defense, recipe, len(self.indices))
        return assign_roles(NO_DEFENSE, recipe, len(self.indices))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        if self.input_size is not None:
            return self.input_size, self.input_size
        return self.built.choose_input_sides(self.dataset.image_shape[1:])

    @functools.cached_property
    def record(self) -> CachedModelRecord:
        """The record of the model as known before the training: everything that determines the weights.

        Mean and deviation of the images take one pass over them, once per specification.
        """
        channels, *size = self.dataset.image_shape
        soft = self.targets.ndim == 2
        # Without a defense, records that early stopping holds out count too: keys of stored models depend on it.
        normalised_by = self.indices if self.defense is None else self.indices[self.parts.training]
        preprocessing = self.applied_defense.preprocessing(self.dataset, normalised_by)
        if tuple(size) != self.sides:
            preprocessing = preprocessing.model_copy(update={"input_size": self.sides})
        return CachedModelRecord(
            dataset=self.dataset.fingerprint,
            training_set=_digest(self.indices, "<i8"),
            targets=_digest(self.targets, "<f4" if soft else "<i8"),
            soft=soft,
            records=len(self.indices),
            architecture=self.built.name,
            architecture_version=self.built.version,
            num_classes=self.num_classes,
            channels=channels,
            image_size=max(size) if self.input_size is not None else shorten_size(self.sides),
            recipe=self.changed_recipe,
            defense=None if self.defense is None else self.defense.make_record(),
            aside="" if self.aside is None else _digest(self.aside, "<i8"),
            preprocessing=preprocessing,
        )

    def check(self) -> None:
        """Check before any work that the model can be trained.

        Raises:
            ConfigurationError: If there are too few records, or the defense cannot be combined with this training.
            ModelError: If models cannot be trained on the images.
        """
        check_images(self.dataset)
        if len(self.indices) < 2:
            raise ConfigurationError(f"{len(self.indices)} records are too few to train a model on.")
        if self.defense is None:
            return
        if self.targets.ndim != 1:
            raise ConfigurationError(f"{self.defense.name} changes a training on labels, not on posteriors.")
        shape = self.num_classes, self.dataset.image_shape[0], shorten_size(self.sides)
        self.defense.check(self.built.reference, shape, len(self.parts.training), self.changed_recipe)


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A trained model.

    Attributes:
        target: The model under white-box access, emitting logits.
        members: Records that it was trained on, in the order of the specification: without those that early stopping
            held out, or that a defense used for another purpose.
        history: History of its training.
        key: Digest of everything that determines its weights; the name of its folder.
        weights: Its weights file; None if nothing is stored.
    """

    target: Target
    members: NDArray[np.int64]
    history: History
    key: str
    weights: Path | None


def obtain_model(
    spec: ModelSpec,
    *,
    kind: str,
    cache: Path | None = None,
    device: str = "auto",
    progress: Epochs | None = None,
) -> StoredModel:
    """Load the model of a specification from the store, or train it if it is not there.

    Args:
        spec: Specification of the model.
        kind: Name of its folder in the store, in the plural: ``shadows``, ``surrogates``.
        cache: Folder of the store; None stores nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. It is not part of the key: a model that was trained on
            another device is used as it is.
        progress: Called after each epoch with the number of epochs done.

    Raises:
        ConfigurationError: If there are no images, or too few records.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    run = TrainingRun(spec, kind=kind, cache=cache, device=device)
    run.train(progress)
    return run.finished()


class TrainingRun:
    """Turns a specification into a model: created and finished in the main thread, trained in any thread.

    Initial weights come from torch's global random state, and the tracing that folds batch norms changes `nn.Module`
    for all threads while it lasts. Neither may happen while another thread trains.

    Args:
        spec: Specification of the model.
        kind: Name of its folder in the store, in the plural.
        cache: Folder of the store; None stores nothing.
        device: Where to train.
        images: Images that were fetched already, and the positions of its records among them; None reads the dataset.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        kind: str,
        cache: Path | None = None,
        device: str = "auto",
        images: tuple[Images, NDArray[np.int64]] | None = None,
    ) -> None:
        spec.check()
        self.spec = spec
        self.device = device
        self.images = images
        self.network = spec.applied_defense.network(build_fresh_network(spec), logger.debug)
        self.record = spec.record
        self.folder = None if cache is None else cache / kind / spec.record.key

    def train(self, progress: Epochs | None = None) -> None:
        """Put trained weights into the network, from the store or by training."""
        with lock_folder(self.folder):
            stored = find_stored(self.folder, self.record, self.network.load_state_dict)
            self.record = stored or _train(self.network, self.spec, self.folder, self.device, progress, self.images)

    def finished(self) -> StoredModel:
        """The trained model."""
        spec, record = self.spec, self.record
        backend = ModuleBackend(
            self.network,
            reference=record.architecture if ":" in record.architecture else f"arch:{record.architecture}",
            checksum=state_checksum(self.network.state_dict(), spec.built.identity),
            example_shape=(record.channels, *spec.sides),
            device=resolve_device(self.device),
        )
        backend.num_classes = spec.num_classes
        backend.architecture = spec.built.reference
        target = Target(backend, preprocessing=record.preprocessing, access=Access.WHITE_BOX)
        weights = None if self.folder is None else self.folder / WEIGHTS
        return StoredModel(target, spec.indices[spec.parts.training], record.history, spec.record.key, weights)


def build_fresh_network(spec: ModelSpec) -> nn.Module:
    """Build the network of a specification with its initial weights, which the seed of the recipe determines.

    Raises:
        UnknownName: If there is no such architecture.
        ModelError: If it cannot be built for the images or the classes.
    """
    with isolate_random_state():
        seed_global_state(derive_seed(spec.recipe.seed, "initial weights"))
        return spec.built.build(spec.num_classes, spec.dataset.image_shape[0], spec.sides)


def check_images(dataset: ImageDataset) -> None:
    """Raise an error unless models can be trained on the images of a dataset."""
    if dataset.images is None:
        raise ConfigurationError(
            f"{dataset.reference} holds recorded outputs and no images, so no models can be trained on it.",
            hint="Give the images with --dataset.",
        )


def _digest(values: NDArray[Any], kind: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=kind).tobytes()).hexdigest()


@contextlib.contextmanager
def lock_folder(folder: Path | None) -> Iterator[None]:
    """Lock a folder of the store against other processes; without a folder, no lock is needed."""
    with contextlib.nullcontext() if folder is None else hold_file_lock(folder / "lock"):
        yield


def find_stored(
    folder: Path | None, wanted: R, load: Callable[[Mapping[str, torch.Tensor]], object], name: str | None = None
) -> R | None:
    """Load stored weights into a network.

    Args:
        folder: Folder of the model in the store; None for no store.
        wanted: Record of the requested model.
        load: Called with the tensors by name.
        name: Name of the record's file, if it is not the default one beside the weights.

    Returns:
        The stored record; None if the model is absent, or if it is damaged, which is logged.
    """
    if folder is None:
        return None
    weights = folder / WEIGHTS
    path = folder / name if name else locate_model_record(weights)
    try:
        record = type(wanted).model_validate(check_digest(parse_json(read_bytes(path))))
        if record.key == wanted.key and file_checksum(weights) == record.weights_checksum:
            load(read_state_dict(weights)[0])
            return record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, ValidationError) as error:
        logger.debug("%s: %s", folder.name, error)
    logger.warning("A stored model is damaged and is trained again: %s", folder.name)
    return None


def _train(
    network: nn.Module,
    spec: ModelSpec,
    folder: Path | None,
    device: str,
    progress: Epochs | None,
    fetched: tuple[Images, NDArray[np.int64]] | None,
) -> CachedModelRecord:
    assert spec.dataset.images is not None  # `check_images` has raised otherwise
    record = spec.record
    images, indices = fetched or (spec.dataset.images, spec.indices)
    checkpoint = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
    fitting = Fitting(
        spec.built.reference,
        network,
        images,
        spec.dataset.labels,
        indices,
        record.recipe,
        record.preprocessing,
        (record.num_classes, record.channels, shorten_size(spec.sides)),
        checkpoint=None if checkpoint is None else checkpoint.path,
        data_fingerprint=record.key,
        device=device,
        progress=(lambda done, _total, _history: progress(done)) if progress else None,
        note=logger.info,
    )
    if spec.defense is None:
        record = record.model_copy(update={"history": fitting.fit(targets=spec.targets)})
    else:
        labels = spec.dataset.labels.copy()
        labels[spec.indices] = spec.targets
        roles = spec.parts
        aside = spec.indices[roles.aside] if spec.aside is None else spec.aside
        # The dataset's images: those fetched for several models may lack the records that were set aside.
        fitting = replace(
            fitting, images=spec.dataset.images, labels=labels, indices=spec.indices[roles.given], aside=aside
        )
        history, defense = train_with_defense(spec.defense, fitting)
        record = record.model_copy(update={"history": history, "defense": defense})
    if folder is None or checkpoint is None:
        return record
    record = save_trained_model(folder / WEIGHTS, network.state_dict(), record)
    for path in (checkpoint.path, *fitting.parts):
        CheckpointFile(path, logger.info).remove()
    return record
