"""The model record: the JSON beside trained weights, which states what determined them and how their training went.

`TargetRecord` describes a target, in ``NAME.json`` beside ``NAME.safetensors``; `CachedModelRecord` describes a shadow
model or surrogate in the store (`securitynet.models.store.cached_model`). Both have a key, a digest of everything that
determines the weights. `securitynet.models.store.record_files` writes and reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SerializerFunctionWrapHandler, model_serializer

from securitynet.files import hash_stably
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.repair_record import RepairRecord
from securitynet.models.training.canaries import CanaryRecord
from securitynet.models.training.fit import History
from securitynet.models.training.poisoned_dataset import BackdoorRecord
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import ImageSize, expand_size
from securitynet.models.training.training_defense import DefenseRecord
from securitynet.records import DatasetIdentity, Record


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
        return hash_stably(self.decisive())

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
        image_size: Height and width of the images in pixels; a pair if they differ and the network gets them so.
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
    image_size: ImageSize
    preprocessing: Preprocessing
    recipe: Recipe
    defense: DefenseRecord | None = None
    history: History = History()

    @property
    def input_sides(self) -> tuple[int, int]:
        """Height and width of the images for which the network was built, in pixels."""
        return expand_size(self.image_size)


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
        return hash_stably([self.dataset, self.training_set])

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
        return hash_stably([self.dataset.fingerprint, self.split.model_dump(mode="json"), *canaries])

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
