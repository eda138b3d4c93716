"""The store of trained models: shadow models and surrogates, each trained once for what decides its weights.

A model lies in ``<kind>/<key>/``: ``weights.safetensors``, ``weights.json`` (written last: with it the model is
complete) and, while it is being trained, a checkpoint from which a killed run goes on. The weights can be loaded as a
target: ``securitynet assess arch:NAME --weights <kind>/<key>/weights.safetensors``, where the preprocessing comes from
the file beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.locks import exclusive
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import atomic_write, file_checksum, write_json
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources import open_source
from securitynet.models.sources.base import Shape
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.weights import read_state_dict, state_checksum
from securitynet.models.store.stored_facts import StoredFacts
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import (
    UNPROTECTED,
    Fitting,
    Parts,
    Protection,
    has_group_norms,
    parts,
    train_protected,
)
from securitynet.randomness import derived_seed, isolated
from securitynet.records import Access

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
FACTS = "weights.json"

Epochs = Callable[[int], None]
"""Called with the number of epochs done."""


@dataclass(frozen=True, eq=False)
class Job:
    """A model that is wanted.

    Attributes:
        dataset: With square images.
        indices: Training records, N int64, at least 2. Images are normalised by their mean and deviation.
        targets: Labels, N int64, or posteriors, N×K float32.
        num_classes: K.
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`, or a reference to a network of another
            library (``timm:resnet18``), which is trained from fresh weights.
        recipe: With the seed of this model.
        input_size: Height and width that images are resized to before the network; None leaves them.
        protection: The defense to train with, on labels; None for none. It changes the recipe, and may take some of the
            records for something else than training.
        aside: Records for the protection to take instead, A int64, none of ``indices``: all of those train then.
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    targets: NDArray[np.int64] | NDArray[np.float32]
    num_classes: int
    architecture: str
    recipe: Recipe
    input_size: int | None = None
    protection: Protection | None = None
    aside: NDArray[np.int64] | None = None

    @property
    def guard(self) -> Protection:
        """The protection; for none, one that changes nothing."""
        return self.protection or UNPROTECTED

    @property
    def changed_recipe(self) -> Recipe:
        """The recipe as the protection wants it."""
        return self.guard.change_recipe(self.recipe)

    @property
    def parts(self) -> Parts:
        """Which of the records do what."""
        recipe = self.changed_recipe
        if self.aside is None:
            return parts(self.guard, recipe, len(self.indices))
        return parts(UNPROTECTED, recipe, len(self.indices))

    def check(self) -> None:
        """Raise an error before any work if it can't be trained so.

        Raises:
            ConfigurationError: If there are too few records, or the protection can't be had with this training.
            ModelError: If the images are not such that models can be trained on them.
        """
        check_images(self.dataset)
        if len(self.indices) < 2:
            raise ConfigurationError(f"{len(self.indices)} records are too few to train a model on.")
        if self.protection is None:
            return
        if self.targets.ndim != 1:
            raise ConfigurationError(f"{self.protection.name} protects a training on labels, not on posteriors.")
        channels, size, _ = self.dataset.image_shape
        shape = self.num_classes, channels, self.input_size or size
        self.protection.check(self.architecture, shape, len(self.parts.training), self.changed_recipe)


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A trained model.

    Attributes:
        target: The model under white-box access, emitting logits.
        kept: Positions in the job's records that it was trained on: all, but for those that early stopping held out,
            or that a protection took for something else.
        history: Of its training.
        key: Digest of all that decides its weights; the name of its folder.
        weights: Its weights file; None if nothing is kept.
    """

    target: Target
    kept: NDArray[np.int64]
    history: History
    key: str
    weights: Path | None


def obtain_model(
    job: Job,
    *,
    kind: str,
    cache: Path | None = None,
    device: str = "auto",
    progress: Epochs | None = None,
) -> StoredModel:
    """The model of a job: from the store if it is there, else trained now.

    Args:
        job: What is wanted.
        kind: Name of its folder in the store, in the plural: ``shadows``, ``surrogates``.
        cache: Folder of the store; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. It is not part of the key: a model that was trained
            elsewhere is used as it is.
        progress: Called after each epoch.

    Raises:
        ConfigurationError: If there are no images, or too few records.
        ModelError: If the network cannot be built for the images or trained on them.
    """
    work = Work(job, kind=kind, cache=cache, device=device)
    work.train(progress)
    return work.finished()


class Work:
    """A job on its way to a model: made and finished in the main thread, trained in any.

    Initial weights come from torch's global random state, and the tracing that folds batch norms changes `nn.Module`
    for all threads while it lasts: neither may happen while another thread trains.

    Args:
        job: What is wanted.
        kind: See `obtain_model`, as for the others.
        cache: Folder of the store.
        device: Where to train.
        images: The job's images where they have been fetched already, and the positions of its records among them.
    """

    def __init__(
        self,
        job: Job,
        *,
        kind: str,
        cache: Path | None = None,
        device: str = "auto",
        images: tuple[Images, NDArray[np.int64]] | None = None,
    ) -> None:
        job.check()
        self.job = job
        self.device = device
        self.images = images
        self.network = job.guard.network(fresh_network(job), logger.debug)
        self.facts = _facts(job, self.network)
        self.folder = None if cache is None else cache / kind / self.facts.key

    def train(self, progress: Epochs | None = None) -> None:
        """Put trained weights into the network: from the store if they are there, else by training."""
        with contextlib.nullcontext() if self.folder is None else exclusive(self.folder / "lock"):
            found = None if self.folder is None else _read(self.folder, self.facts, self.network)
            if found is None:
                found = _train(self.network, self.job, self.facts, self.folder, self.device, progress, self.images)
        self.facts = found

    def finished(self) -> StoredModel:
        """The model, trained."""
        job, facts = self.job, self.facts
        size = job.input_size or facts.image_size
        backend = ModuleBackend(
            self.network,
            reference=job.architecture if ":" in job.architecture else f"arch:{job.architecture}",
            checksum=state_checksum(self.network.state_dict(), job.architecture),
            example_shape=(facts.channels, size, size),
            device=resolve_device(self.device),
        )
        backend.num_classes = job.num_classes
        target = Target(backend, preprocessing=facts.preprocessing, access=Access.WHITE_BOX)
        weights = None if self.folder is None else self.folder / WEIGHTS
        return StoredModel(target, job.parts.training, facts.history, facts.key, weights)


def fresh_network(job: Job) -> nn.Module:
    """The network of a job with its initial weights, which the seed of the recipe decides.

    Raises:
        UnknownName: If there is no such architecture.
        ModelError: If it cannot be built for the images or the classes.
    """
    channels, size, _ = job.dataset.image_shape
    shape = Shape(job.num_classes, channels, job.input_size or size)
    reference = parse_reference(qualified(job.architecture))
    if not reference.is_network:
        raise ConfigurationError(f"{job.architecture} is no network that could be trained.")
    source = open_source(reference)
    with isolated():
        torch.manual_seed(derived_seed(job.recipe.seed, "initial weights"))
        try:
            return source.build(shape, frozenset())
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(
                f"{job.architecture} cannot be built for {shape.num_classes} classes and {channels}×{size}×{size} "
                f"images: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                hint="Choose another architecture.",
            ) from error


def qualified(architecture: str) -> str:
    """The reference of an architecture: ``arch:NAME`` for one of ours, and itself for ``timm:NAME`` and the like.

    Raises:
        UnknownName: If it is a name and none of ours.
    """
    return architecture if ":" in architecture else f"arch:{ARCHITECTURES.resolve(architecture).name}"


def check_images(dataset: ImageDataset) -> None:
    """Raise an error unless models can be trained on the images of a dataset."""
    if dataset.images is None:
        raise ConfigurationError(
            f"{dataset.reference} holds recorded outputs and no images, so no models can be trained on it.",
            hint="Give the images with --dataset.",
        )
    _, height, width = dataset.image_shape
    if height != width:
        raise ModelError(
            f"The architectures take square images; those of {dataset.reference} are {height}×{width}.",
            hint="Resize them with --image-size N.",
        )


def _facts(job: Job, network: nn.Module) -> StoredFacts:
    channels, size, _ = job.dataset.image_shape
    soft = job.targets.ndim == 2
    # Without a protection the records that early stopping holds out count too: keys of stored models rest on it.
    normalised_by = job.indices if job.protection is None else job.indices[job.parts.training]
    preprocessing = job.guard.preprocessing(job.dataset, normalised_by)
    if job.input_size is not None and job.input_size != size:
        preprocessing = preprocessing.model_copy(update={"input_size": (job.input_size, job.input_size)})
    targets = np.ascontiguousarray(job.targets, dtype="<f4" if soft else "<i8")
    return StoredFacts(
        dataset=job.dataset.fingerprint,
        training_set=_digest(job.indices),
        targets=hashlib.sha256(targets.tobytes()).hexdigest(),
        soft=soft,
        records=len(job.indices),
        architecture=job.architecture,
        num_classes=job.num_classes,
        channels=channels,
        image_size=size,
        recipe=job.changed_recipe,
        defense=None if job.protection is None else job.protection.protected(group_norms=has_group_norms(network)),
        aside="" if job.aside is None else _digest(job.aside),
        preprocessing=preprocessing,
    )


def _digest(indices: NDArray[np.int64]) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def _train(
    network: nn.Module,
    job: Job,
    facts: StoredFacts,
    folder: Path | None,
    device: str,
    progress: Epochs | None,
    fetched: tuple[Images, NDArray[np.int64]] | None,
) -> StoredFacts:
    assert job.dataset.images is not None  # `check_images` has raised otherwise
    images, indices = fetched or (job.dataset.images, job.indices)
    checkpoint = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
    fitting = Fitting(
        job.architecture,
        network,
        images,
        job.dataset.labels,
        indices,
        facts.recipe,
        facts.preprocessing,
        (facts.num_classes, facts.channels, job.input_size or facts.image_size),
        checkpoint=None if checkpoint is None else checkpoint.path,
        data_fingerprint=facts.key,
        device=device,
        progress=(lambda done, _total, _history: progress(done)) if progress else None,
        note=logger.info,
    )
    if job.protection is None:
        facts = facts.model_copy(update={"history": fitting.fit(targets=job.targets)})
    else:
        labels = job.dataset.labels.copy()
        labels[job.indices] = job.targets
        roles = job.parts
        aside = job.indices[roles.aside] if job.aside is None else job.aside
        # The dataset's images: those that were fetched for several jobs may lack what was set aside.
        wanted = replace(
            fitting, images=job.dataset.images, labels=labels, indices=job.indices[roles.given], aside=aside
        )
        history, protected = train_protected(job.protection, wanted)
        facts = facts.model_copy(update={"history": history, "defense": protected})
        fitting = wanted
    if folder is None or checkpoint is None:
        return facts
    state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    weights = folder / WEIGHTS
    with atomic_write(weights) as stream:
        stream.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    facts = facts.model_copy(update={"weights_checksum": file_checksum(weights)})
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    checkpoint.remove()
    for path in fitting.parts:
        CheckpointFile(path, logger.info).remove()
    return facts


def _read(folder: Path, wanted: StoredFacts, network: nn.Module) -> StoredFacts | None:
    """Put the stored weights into the network; None if they are absent or damaged (which is logged)."""
    try:
        facts = StoredFacts.model_validate(json.loads((folder / FACTS).read_text(encoding="utf-8")))
        weights = folder / WEIGHTS
        if facts.key == wanted.key and file_checksum(weights) == facts.weights_checksum:
            network.load_state_dict(read_state_dict(weights)[0])
            return facts
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        logger.debug("%s: %s", folder.name, error)
    logger.warning("A stored model is damaged and is trained again: %s", folder.name)
    return None
