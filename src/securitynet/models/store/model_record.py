"""The model record: the JSON beside trained weights, which says what decided them and how their training went.

`TargetRecord` describes a target, in ``NAME.json`` beside ``NAME.safetensors``; `CachedModelRecord` a shadow model or
surrogate in the store (`securitynet.models.store.cached_model`). Both have one key, a digest of all that decides the
weights.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.errors import ModelError, SplitError
from securitynet.files import atomic_write, check_writable, file_checksum, stable_hash, write_json
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.fit import History, held_out
from securitynet.models.training.poisoned_dataset import BackdoorRecord
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import DefenseRecord, set_aside
from securitynet.records import DatasetIdentity, Record


class ModelRecord(Record, ABC):
    """What every record of trained weights has.

    Class attributes:
        outcomes: Fields that follow from the training and decide nothing.

    Attributes:
        version: Of the list of fields, and of the code that trains: raising it retires all stored models.
        weights_checksum: SHA-256 of the weights file; empty before it is written.
    """

    outcomes: ClassVar[frozenset[str]] = frozenset({"history", "weights_checksum"})

    version: Literal[1] = 1
    weights_checksum: str = ""

    def decisive(self) -> dict[str, Any]:
        """What decides the weights, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.outcomes))

    @property
    def key(self) -> str:
        """Digest of all that decides the weights: equal keys, equal weights. In the store, the name of a folder."""
        return stable_hash(self.decisive())

    @property
    @abstractmethod
    def membership(self) -> str:
        """Digest of who was a member; written into the weights file, so that a lost or foreign record is noticed."""

    def document(self) -> dict[str, Any]:
        """What is written beside the weights."""
        return self.model_dump(mode="json")


class ClassifierRecord(ModelRecord):
    """The record of a trained classifier.

    Attributes:
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`, or a reference such as
            ``timm:resnet18``.
        num_classes: Number of logits.
        channels: Channels of the images.
        image_size: Height and width of the images in pixels.
        preprocessing: Between images in [0, 1] and the network.
        recipe: How it was trained, with its seed and version.
        defense: The defense it was trained with, and what that spent; None for none.
        history: What happened in each epoch.
    """

    architecture: str
    num_classes: int
    channels: int
    image_size: int
    preprocessing: Preprocessing
    recipe: Recipe
    defense: DefenseRecord | None = None
    history: History = History()


class CachedModelRecord(ClassifierRecord):
    """The record of a model in the store.

    Attributes:
        format: Tells this file from other JSON files.
        dataset: Fingerprint of the dataset of the images.
        training_set: SHA-256 of the indices of the training records, in their order.
        targets: SHA-256 of the labels or posteriors that they were trained on.
        soft: Whether those were posteriors.
        records: How many records there are.
        aside: SHA-256 of the indices of records that the defense used for something else, where they were given and
            are none of the training records; empty otherwise.
    """

    format: Literal["securitynet-stored-model"] = "securitynet-stored-model"
    dataset: str
    training_set: str
    targets: str
    soft: bool
    records: int
    aside: str = ""

    @property
    def membership(self) -> str:
        """Digest of the dataset and of its records that are members."""
        return stable_hash([self.dataset, self.training_set])

    def decisive(self) -> dict[str, Any]:
        """What decides the weights. Without a defense nothing is said of one, as before there were any."""
        values = super().decisive()
        aside = values.pop("aside")
        if values.pop("defense") is not None and self.defense is not None:
            values["defense"] = {"name": self.defense.name, "settings": self.defense.settings, "aside": aside}
        return values


class TrainedSplit(Record):
    """Who was a member.

    Attributes:
        protocol: ``four-way`` or ``public``.
        seed: Of the split.
        known: Share of members that an adversary with partial data knows; None for the protocol's default.
        fingerprint: Of the splits as `trained_splits` makes them.
        held_out: Members of the protocol that the model was not trained on: those that early stopping validated on,
            and those that a defense set aside.
        aside: Share of the protocol's members that a defense set aside.
    """

    protocol: Literal["four-way", "public"]
    seed: int
    known: float | None = None
    fingerprint: str
    held_out: int = Field(default=0, ge=0)
    aside: float = Field(default=0.0, ge=0, lt=1)


class TargetRecord(ClassifierRecord):
    """The record of a target.

    Attributes:
        format: Tells this file from other JSON files beside weights.
        class_names: In the order of the logits.
        dataset: That its records are of.
        split: Who was a member.
        backdoor: The backdoor that it was trained with; None for none.
        train_accuracy: On the records it was trained on, in [0, 1], in evaluation mode.
        test_accuracy: On the non-members.
        versions: Of securitynet and torch.
    """

    outcomes: ClassVar[frozenset[str]] = ModelRecord.outcomes | {"train_accuracy", "test_accuracy", "versions"}

    format: Literal["securitynet-trained-model"] = "securitynet-trained-model"
    class_names: tuple[str, ...]
    dataset: DatasetIdentity
    split: TrainedSplit
    backdoor: BackdoorRecord | None = Field(default=None, validation_alias=AliasChoices("backdoor", "implant"))
    train_accuracy: float = Field(ge=0, le=1)
    test_accuracy: float = Field(ge=0, le=1)
    versions: dict[str, str]

    @property
    def membership(self) -> str:
        """Digest of the dataset and of its records that are members."""
        return stable_hash([self.dataset.fingerprint, self.split.model_dump(mode="json")])

    @property
    def overfitting(self) -> float:
        """The overfitting level: train accuracy minus test accuracy (ML-Doctor, section 6.1)."""
        return self.train_accuracy - self.test_accuracy

    @property
    def epochs_run(self) -> int:
        """Epochs that were trained; fewer than the recipe's where it stopped early."""
        return self.history.epochs_run

    def decisive(self) -> dict[str, Any]:
        """What decides the weights: of defense and backdoor, what was asked for."""
        values = super().decisive()
        if self.defense is not None:
            values["defense"] = self.defense.requested.model_dump(mode="json")
        if self.backdoor is not None:
            values["backdoor"] = self.backdoor.requested.model_dump(mode="json")
        return values

    def document(self) -> dict[str, Any]:
        """What is written beside the weights: also the values that follow from others, and the history last."""
        return {
            **self.model_dump(mode="json", exclude={"history"}),
            "overfitting": self.overfitting,
            "epochs_run": self.epochs_run,
            "history": self.history.model_dump(mode="json"),
        }


_RECORDS: Final[TypeAdapter[TargetRecord | CachedModelRecord]] = TypeAdapter(
    Annotated[TargetRecord | CachedModelRecord, Field(discriminator="format")]
)
_FORMATS: Final = ("securitynet-trained-model", "securitynet-stored-model")

_MEMBERSHIP: Final = "securitynet.membership"
"""Key of `ModelRecord.membership` in the metadata of a weights file."""

R = TypeVar("R", bound=ModelRecord)


def model_record_path(weights: Path) -> Path:
    """Where the record of a weights file is: ``NAME.json`` for ``NAME.safetensors``."""
    return Path(weights).with_suffix(".json")


def save_trained_model(weights: Path, state: Mapping[str, torch.Tensor], record: R, beside: Path | None = None) -> R:
    """Write weights and their record, each whole or not at all, the record last: with it the model is complete.

    Args:
        weights: File to write, ending in ``.safetensors``.
        state: The tensors, by name.
        record: Its checksum is filled in.
        beside: File of the record, where it is not `model_record_path`.

    Returns:
        The record as written.
    """
    # Copies of their own, because safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    with atomic_write(weights) as stream:
        stream.write(safetensors.torch.save(tensors, metadata={"format": "pt", _MEMBERSHIP: record.membership}))
    record = record.model_copy(update={"weights_checksum": file_checksum(weights)})
    write_json(beside or model_record_path(weights), record.document())
    return record


def check_path(path: Path) -> None:
    """Raise `ModelError` or `ConfigurationError` unless weights can be written to ``path``."""
    if path.suffix != ".safetensors":
        raise ModelError(
            f"Weights are written as safetensors, and {path.name} has another ending.",
            hint=f"Write --out {path.with_suffix('.safetensors')}.",
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a file to write weights to.")
    check_writable(path.parent)


def read_model_record(weights: Path) -> TargetRecord | CachedModelRecord | None:
    """The record beside a weights file; None if there is none, or neither file is ours.

    Raises:
        ModelError: If the record is damaged, of a newer version, or not about these weights; or if these weights say
            that they were trained here, and the file beside them is not their record.
    """
    weights = Path(weights)
    path = model_record_path(weights)
    if path == weights or not path.is_file():
        return None
    again = "Train the model again, or move that file away to load the weights without it."
    membership = read_membership(weights)
    text = path.read_bytes().decode("utf-8", errors="replace")
    if not any(name in text for name in _FORMATS):
        if membership is None:
            return None
        raise ModelError(
            f"{path} is {'not the model record' if text.strip() else 'empty, and not the model record'} of "
            f"{weights.name}, so its members are not known.",
            hint=f"Was something else written to that file, such as --json > {path.name}? {again}",
        )
    try:
        values = json.loads(text)
        if values.get("version") != 1:
            raise ModelError(f"{path} was written by another version of securitynet.", hint="Update securitynet.")
        for derived in ("overfitting", "epochs_run"):
            values.pop(derived, None)
        record = _RECORDS.validate_python(values)
    except (ValueError, AttributeError, ValidationError) as error:
        raise ModelError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint=again) from error
    if not weights.is_file():
        raise ModelError(f"{path} is there, but the weights {weights.name} that it is about are not.", hint=again)
    if file_checksum(weights) != record.weights_checksum:
        raise ModelError(
            f"{path} is about other weights than those in {weights.name}: the checksums differ.", hint=again
        )
    if membership not in (None, record.membership):
        raise ModelError(f"{path} states other members than those that {weights.name} was trained on.", hint=again)
    return record


def read_membership(weights: Path) -> str | None:
    """The `ModelRecord.membership` in a weights file; None if it was not trained here, or by an earlier version."""
    if Path(weights).suffix != ".safetensors" or not Path(weights).is_file():
        return None
    try:
        with safetensors.safe_open(weights, framework="pt") as content:
            return (content.metadata() or {}).get(_MEMBERSHIP)
    except (OSError, safetensors.SafetensorError):
        return None  # damaged, or no such file: whoever reads the weights says so


def read_target_record(weights: Path) -> TargetRecord | None:
    """The record of a target; None also for weights from the store, which say nothing of members and non-members.

    Raises:
        ModelError: See `read_model_record`.
    """
    record = read_model_record(weights)
    return record if isinstance(record, TargetRecord) else None


def trained_splits(trained: TargetRecord, dataset: ImageDataset, *, known: float | None = None) -> Splits:
    """The splits that a model was trained with: exactly the records it saw are members.

    Members that early stopping held out trained nothing, and they chose the epoch: they are neither members nor
    non-members, and are left out. So are those that a defense set aside.

    Args:
        trained: The record of the model.
        dataset: The one it was trained on.
        known: Share of members that the adversary knows; that stated at training by default.

    Raises:
        SplitError: If the dataset is another one, or the split does not come out as it was.
    """
    stated = trained.split
    if trained.dataset.fingerprint != dataset.fingerprint:
        raise SplitError(
            f"This model was trained on {trained.dataset.reference}, in another version than {dataset.reference} as "
            "loaded now, so its members can't be told.",
            hint="Load the dataset as it was for training (same --channels, --image-size, --limit), or choose "
            "--split public or four-way yourself.",
        )
    made = effective_splits(stated.protocol, dataset, stated.seed, stated.known, trained.recipe, stated.aside)
    if made.fingerprint != stated.fingerprint:
        raise SplitError(
            "The split that this model was trained with does not come out as it was, so its members can't be told.",
            hint="Use the version of securitynet that trained it, or train it again.",
        )
    if known is None or known == stated.known:
        return made
    return effective_splits(stated.protocol, dataset, stated.seed, known, trained.recipe, stated.aside)


def effective_splits(
    protocol: str, dataset: ImageDataset, seed: int, known: float | None, recipe: Recipe, aside: float = 0.0
) -> Splits:
    """The splits of a protocol without the members that a defense sets aside, or early stopping holds out.

    Raises:
        SplitError: If the dataset cannot be split so.
        ConfigurationError: If there is no such protocol, or no records can be held out.
    """
    made = splits.make(protocol, dataset, seed=seed, known=known)
    if not recipe.patience and not aside:
        return made
    members = made.members[set_aside(len(made.members), aside, recipe.seed)[0]]
    if recipe.patience:
        members = members[held_out(len(members), recipe)[0]]
    return replace(made, members=members, known_members=np.intersect1d(made.known_members, members))
