"""The model record: the JSON beside trained weights, which states what determined them and how their training went.

`TargetRecord` describes a target, in ``NAME.json`` beside ``NAME.safetensors``; `CachedModelRecord` describes a shadow
model or surrogate in the store (`securitynet.models.store.cached_model`). Both have a key, a digest of everything that
determines the weights.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import (
    AliasChoices,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.errors import ModelError, SplitError
from securitynet.files import (
    add_digest,
    atomic_write,
    check_digest,
    check_writable,
    file_checksum,
    stable_hash,
    write_json,
)
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.effective_splits import effective_splits
from securitynet.models.store.repair_record import RepairRecord
from securitynet.models.training.canaries import CanaryRecord
from securitynet.models.training.fit import History
from securitynet.models.training.poisoned_dataset import BackdoorRecord
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import DefenseRecord
from securitynet.records import DatasetIdentity, Record
from securitynet.untrusted import check_regular, parse_json, read_bytes


class ModelRecord(Record, ABC):
    """The fields that all records of trained weights have in common.

    Class attributes:
        outcomes: Fields that result from the training and determine nothing.

    Attributes:
        version: Version of the list of fields, and of the training code: raising it invalidates all stored models.
        weights_checksum: SHA-256 of the weights file; empty before it is written.
    """

    outcomes: ClassVar[frozenset[str]] = frozenset({"history", "weights_checksum"})

    version: Literal[1] = 1
    weights_checksum: str = ""

    def decisive(self) -> dict[str, Any]:
        """The fields that determine the weights, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.outcomes))

    @property
    def key(self) -> str:
        """Digest of everything that determines the weights; in the store, also the name of the folder."""
        return stable_hash(self.decisive())

    @property
    @abstractmethod
    def membership(self) -> str:
        """Digest of the members; also written into the weights file, to detect a missing or foreign record."""

    def document(self) -> dict[str, Any]:
        """The content of the file beside the weights."""
        return self.model_dump(mode="json")


class ClassifierRecord(ModelRecord):
    """The record of a trained classifier.

    Attributes:
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`, or a reference such as
            ``timm:resnet18``, without folders.
        architecture_version: Of the library that builds it, or digest of the source code that does; empty for ours.
        num_classes: Number of logits.
        channels: Channels of the images.
        image_size: Height and width of the images in pixels.
        preprocessing: Preprocessing of images in [0, 1] before the network.
        recipe: How it was trained, with seed and version.
        defense: The defense it was trained with, and its effect; None for none.
        history: What happened in each epoch.
    """

    architecture: str
    # Left out for our own architectures, so that models that were stored before it was known are still found.
    architecture_version: str = Field(default="", exclude_if=lambda value: value == "")
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
        format: Distinguishes this file from other JSON files.
        dataset: Fingerprint of the dataset of the images.
        training_set: SHA-256 of the indices of the training records, in their order.
        targets: SHA-256 of the labels or posteriors that they were trained on.
        soft: Whether the targets were posteriors.
        records: Number of training records.
        aside: SHA-256 of the indices of records that the defense used for another purpose, if they were given and are
            not among the training records; empty otherwise.
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
        """Digest of the dataset and of the records that are members."""
        return stable_hash([self.dataset, self.training_set])

    def decisive(self) -> dict[str, Any]:
        """The fields that determine the weights; those of a defense only if there is one."""
        values = super().decisive()
        aside = values.pop("aside")
        if values.pop("defense") is not None and self.defense is not None:
            values["defense"] = {"name": self.defense.name, "settings": self.defense.settings, "aside": aside}
        return values


class TrainedSplit(Record):
    """The split that determined the members.

    Attributes:
        protocol: ``four-way`` or ``public``.
        seed: Seed of the split.
        known: Share of members that an adversary with partial data knows; None for the protocol's default.
        fingerprint: Fingerprint of the splits that `restore_splits` returns.
        held_out: Number of the protocol's members that the model was not trained on: those that early stopping
            validated on, and those that a defense set aside.
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

    Class attributes:
        outcomes: Fields that result from the training and determine nothing.

    Attributes:
        format: Distinguishes this file from other JSON files beside weights.
        class_names: Names in the order of the logits.
        dataset: The dataset of its records.
        split: The split that determined the members.
        backdoor: The backdoor that it was trained with; None for none.
        repair: How a backdoor was removed after the training; None if the weights are those of the training.
        canaries: The canaries that it was trained with; None for none.
        train_accuracy: Accuracy on the training records, in [0, 1], in evaluation mode.
        test_accuracy: Accuracy on the non-members, in [0, 1].
        versions: Versions of securitynet and torch.
    """

    outcomes: ClassVar[frozenset[str]] = ModelRecord.outcomes | {"train_accuracy", "test_accuracy", "versions"}

    format: Literal["securitynet-trained-model"] = "securitynet-trained-model"
    class_names: tuple[str, ...]
    dataset: DatasetIdentity
    split: TrainedSplit
    backdoor: BackdoorRecord | None = Field(default=None, validation_alias=AliasChoices("backdoor", "implant"))
    repair: RepairRecord | None = None
    canaries: CanaryRecord | None = None
    train_accuracy: float = Field(ge=0, le=1)
    test_accuracy: float = Field(ge=0, le=1)
    versions: dict[str, str]

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records and keys of models from before there were canaries or repairs stay as they are.
        values: dict[str, Any] = handler(self)
        for name in ("canaries", "repair"):
            if getattr(self, name) is None:
                values.pop(name, None)
        return values

    @property
    def membership(self) -> str:
        """Digest of the dataset, of the records that are members, and of the canaries if there are any."""
        canaries = [] if self.canaries is None else [self.canaries.digest]
        return stable_hash([self.dataset.fingerprint, self.split.model_dump(mode="json"), *canaries])

    @property
    def overfitting(self) -> float:
        """The overfitting level: train accuracy minus test accuracy (ML-Doctor, section 6.1)."""
        return self.train_accuracy - self.test_accuracy

    @property
    def epochs_run(self) -> int:
        """Number of epochs that were trained; fewer than the recipe's after early stopping."""
        return self.history.epochs_run

    def decisive(self) -> dict[str, Any]:
        """The fields that determine the weights; of defense, backdoor and repair, what was requested."""
        values = super().decisive()
        if self.repair is not None:
            values["repair"] = self.repair.requested
        if self.defense is not None:
            values["defense"] = self.defense.requested.model_dump(mode="json")
        if self.backdoor is not None:
            values["backdoor"] = self.backdoor.requested.model_dump(mode="json")
        return values

    def document(self) -> dict[str, Any]:
        """The content of the file beside the weights: includes derived values, and the history last."""
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
    """Path of the record of a weights file: ``NAME.json`` for ``NAME.safetensors``."""
    return Path(weights).with_suffix(".json")


def save_trained_model(
    weights: Path,
    state: Mapping[str, torch.Tensor],
    record: R,
    beside: Path | None = None,
    *,
    record_first: bool = False,
) -> R:
    """Write weights and their record, each completely or not at all; the record is last and makes the model complete.

    Args:
        weights: File to write, ending in ``.safetensors``.
        state: The tensors, by name.
        record: The record; its checksum is filled in.
        beside: File of the record, if it is not `model_record_path`.
        record_first: Write the record first: what a killed process leaves is then a record without weights, and never
            weights that could be someone's only copy.

    Returns:
        The record as written.
    """
    # Separate copies, because safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    metadata = {"format": "pt", _MEMBERSHIP: record.membership}
    content = _sort_metadata(safetensors.torch.save(tensors, metadata=metadata))
    record = record.model_copy(update={"weights_checksum": hashlib.sha256(content).hexdigest()})
    if record_first:
        write_json(beside or model_record_path(weights), add_digest(record.document()))
    with atomic_write(weights) as stream:
        stream.write(content)
    if not record_first:
        write_json(beside or model_record_path(weights), add_digest(record.document()))
    return record


def _sort_metadata(content: bytes) -> bytes:
    """Sort the metadata in the header of a safetensors file: its library writes them in an order that varies."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
    return content[:8] + text + content[8 + size :] if len(text) == size else content


def check_path(path: Path) -> None:
    """Raise `ModelError` or `ConfigurationError` unless weights can be written to ``path``."""
    if path.suffix != ".safetensors":
        raise ModelError(
            f"Weights are written as safetensors, and {path.name} has another ending.",
            hint=f"Write --out {shlex.quote(str(path.with_suffix('.safetensors')))}.",
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a file to write weights to.")
    check_writable(path.parent)


def read_model_record(weights: Path) -> TargetRecord | CachedModelRecord | None:
    """Read the record beside a weights file; None if there is none, or neither file was written by this package.

    Raises:
        ModelError: If the record is damaged, of a newer version, or not about these weights; or if these weights were
            trained by this package and the file beside them is not their record.
    """
    weights = Path(weights)
    path = model_record_path(weights)
    check_regular(path)
    if path == weights or not path.is_file():
        return None
    again = "Train the model again, or move that file away to load the weights without it."
    membership = read_membership(weights)
    text = read_bytes(path).decode("utf-8", errors="replace")
    if not any(name in text for name in _FORMATS):
        if membership is None:
            return None
        raise ModelError(
            f"{path} is {'not the model record' if text.strip() else 'empty, and not the model record'} of "
            f"{weights.name}, so its members are not known.",
            hint=f"Was something else written to that file, such as --json > {path.name}? {again}",
        )
    try:
        document = parse_json(text)
        if document.get("version") != 1:
            raise ModelError(f"{path} was written by another version of securitynet.", hint="Update securitynet.")
        values = check_digest(document)
        for derived in ("overfitting", "epochs_run"):
            values.pop(derived, None)
        record = _RECORDS.validate_python(values)
    except (ValueError, TypeError, AttributeError, ValidationError) as error:
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
    """Read the `ModelRecord.membership` in a weights file; None if another program or an earlier version wrote it."""
    if Path(weights).suffix != ".safetensors" or not Path(weights).is_file():
        return None
    try:
        with safetensors.safe_open(weights, framework="pt") as content:
            return (content.metadata() or {}).get(_MEMBERSHIP)
    except (OSError, safetensors.SafetensorError):
        return None  # damaged, or no such file: reading the weights reports it


def read_target_record(weights: Path) -> TargetRecord | None:
    """Read the record of a target; None also for weights from the store, whose records have no members and non-members.

    Raises:
        ModelError: If the record is damaged, of a newer version, or not about these weights.
    """
    record = read_model_record(weights)
    return record if isinstance(record, TargetRecord) else None


def restore_splits(trained: TargetRecord, dataset: ImageDataset, *, known: float | None = None) -> Splits:
    """The splits that a model was trained with: the members are exactly the records that it was trained on.

    Members that early stopping held out trained nothing, but they chose the epoch: they are neither members nor
    non-members, and are left out. So are those that a defense set aside, and those whose place canaries took.

    Args:
        trained: Record of the model.
        dataset: The dataset it was trained on.
        known: Share of members that the adversary knows; by default the one stated at training.

    Raises:
        SplitError: If the dataset is another one, or the split differs from that of the training.
    """
    stated = trained.split
    if trained.dataset.fingerprint != dataset.fingerprint:
        raise SplitError(
            f"This model was trained on {trained.dataset.reference}, in another version than {dataset.reference} as "
            "loaded now, so its members are unknown.",
            hint="Load the dataset as it was for training (same --channels, --image-size, --limit), or choose "
            "--split public or four-way yourself.",
        )
    canaries = None if trained.canaries is None else trained.canaries.indices
    made = effective_splits(stated.protocol, dataset, stated.seed, stated.known, trained.recipe, stated.aside, canaries)
    if made.fingerprint != stated.fingerprint:
        raise SplitError(
            "The split that this model was trained with cannot be reproduced, so its members are unknown.",
            hint="Use the version of securitynet that trained it, or train it again.",
        )
    if known is None or known == stated.known:
        return made
    return effective_splits(stated.protocol, dataset, stated.seed, known, trained.recipe, stated.aside, canaries)
