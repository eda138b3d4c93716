"""`Backdoor`: the base class of backdoors, which chooses the records to poison and changes their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, describe_problems
from securitynet.files import parse_toml
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.poisoned_dataset import (
    BackdoorRecord,
    Box,
    ChangedImages,
    Indices,
    PoisonedDataset,
    TriggeredImages,
)
from securitynet.records import Record

Mapping = Literal["all-to-one", "all-to-all"]


class Backdoor(Record, ABC):
    """A backdoor; its fields are its configuration.

    Class attributes:
        clean_label: Whether only records of the target class are poisoned, so that no label changes.
        mappings: Mappings that it supports; backdoors with a rule of their own support only the default.
    """

    clean_label: ClassVar[bool] = False
    mappings: ClassVar[tuple[Mapping, ...]] = ("all-to-one", "all-to-all")

    target: int = Field(default=0, ge=0, description="Class to which the trigger sends images.")
    mapping: Mapping = Field(
        default="all-to-one", description="all-to-one: every class to the target; all-to-all: each class to the next."
    )
    rate: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of the training records that are poisoned; for clean-label backdoors, of the target class.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice of poisoned records.")

    @abstractmethod
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """Add the trigger to images, N×C×H×W uint8; returns new images and leaves the input unchanged."""

    @abstractmethod
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The smallest rectangle around the trigger on images of shape (C, H, W).

        Raises:
            ConfigurationError: If the trigger does not fit them.
        """

    def apply_training_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """Add the trigger to poisoned training records, N×C×H×W uint8; by default the same as `apply_trigger`."""
        return self.apply_trigger(images)

    def decoys(self, rest: Indices) -> Indices:
        """Choose decoys among the other training records: changed without the trigger, with their labels kept."""
        return rest[:0]

    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Change the images of decoys, N×C×H×W uint8, of the records ``indices``."""
        del indices
        return images.clone()

    def apply_trigger_to(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Add the trigger to images, N×C×H×W uint8, of the records ``indices``; by default the same for all of them."""
        del indices
        return self.apply_trigger(images)

    def apply_training_trigger_to(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Add the trigger to poisoned training records ``indices``; by default the same for all of them."""
        del indices
        return self.apply_training_trigger(images)

    def make_training_change(
        self, dataset: ImageDataset, members: Indices
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The function that changes images, N×C×H×W uint8, of poisoned training records, given their indices, N.

        By default it is `apply_training_trigger_to`; backdoors that mix images with others take them from here.

        Args:
            dataset: The dataset, with images.
            members: All training records.
        """
        del dataset, members
        return self.apply_training_trigger_to

    def choose_decoys(self, dataset: ImageDataset, members: Indices, chosen: Indices) -> Indices:
        """Choose decoys: training records that are changed and keep their labels.

        Args:
            dataset: The dataset, with the true classes.
            members: All training records.
            chosen: The poisoned ones.
        """
        del dataset
        return self.decoys(np.setdiff1d(members, chosen))

    def affects(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
        """Whether the trigger should change the predictions for records of the given classes; by default, of all.

        Args:
            labels: True classes, N int64.
            classes: Number of classes, K.
        """
        del classes
        return np.ones(len(labels), dtype=bool)

    def find_goals(self, dataset: ImageDataset, indices: Indices) -> NDArray[np.int64]:
        """Classes to which the trigger should send records; by default their class alone decides, see `goals`."""
        return self.goals(dataset.labels[indices], dataset.num_classes)

    def goals(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Classes to which the trigger should send records of the given classes.

        Args:
            labels: True classes, N int64.
            classes: Number of classes, K.
        """
        if self.mapping == "all-to-all":
            return (labels + 1) % classes
        return np.full_like(labels, self.target)

    def poison(self, dataset: ImageDataset, members: Indices) -> PoisonedDataset:
        """Poison a training set.

        Args:
            dataset: The dataset, with images.
            members: Training records, int64; some of them are poisoned.

        Raises:
            ConfigurationError: If the backdoor does not fit the dataset, or the rate poisons no record.
        """
        images = self.check(dataset)
        labels = dataset.labels[members]
        affected = self.affects(labels, dataset.num_classes)
        wrong = labels != self.find_goals(dataset, members)
        eligible = members[labels == self.target] if self.clean_label else members[affected & wrong]
        count = round(self.rate * (len(eligible) if self.clean_label else int(affected.sum())))
        if count == 0:
            raise ConfigurationError(
                f"A rate of {self.rate:g} poisons none of {len(members)} training records.",
                hint="Choose a larger rate.",
            )
        # This word is part of the seed of models that were trained before: it never changes.
        chosen = np.sort(eligible[shuffle(len(eligible), "implant", self.seed)[:count]])
        changed = dataset.labels.copy()
        if not self.clean_label:
            changed[chosen] = self.find_goals(dataset, chosen)
        every = np.union1d(chosen, self.choose_decoys(dataset, members, chosen))
        record = BackdoorRecord(
            name=self.name,
            settings=self.model_dump(mode="json"),
            mapping=self.recorded_mapping,
            target=self.target if self.recorded_mapping == "all-to-one" else None,
            box=self.box(dataset.image_shape),
            poisoned=len(chosen),
            changed=int((changed != dataset.labels).sum()),
        )
        add_trigger = self.make_training_change(dataset, members)
        carries = torch.zeros(len(dataset), dtype=torch.bool)
        carries[torch.as_tensor(chosen)] = True

        def change(shown: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
            changed_images = self.decoy(shown, indices)
            carried = carries[indices]
            if bool(carried.any()):
                changed_images[carried] = add_trigger(shown[carried], indices[carried])
            return changed_images

        return PoisonedDataset(ChangedImages(images, every, change), changed, chosen, record)

    def triggered(self, dataset: ImageDataset, indices: Indices) -> TriggeredImages:
        """Put the trigger on records, except those of classes that it does not affect or leads to.

        Args:
            dataset: The dataset, with images.
            indices: Records, int64.

        Raises:
            ConfigurationError: If the backdoor does not fit the dataset.
        """
        images = self.check(dataset)
        labels = dataset.labels[indices]
        goals = self.find_goals(dataset, indices)
        others = (goals != labels) & self.affects(labels, dataset.num_classes)
        change = ChangedImages(images, indices[others], self.apply_trigger_to)
        return TriggeredImages(change, indices[others], goals[others])

    def check(self, dataset: ImageDataset) -> Images:
        """Check that this backdoor fits a dataset, and return the images of the dataset.

        Raises:
            ConfigurationError: If there are no images, the target is not a class, or the trigger does not fit.
        """
        if dataset.images is None:
            raise ConfigurationError(f"{dataset.reference} holds recorded outputs and no images.")
        if self.target >= dataset.num_classes:
            raise ConfigurationError(
                f"The target {self.target} is not a class of {dataset.reference}, which has {dataset.num_classes}."
            )
        if self.clean_label and self.mapping != "all-to-one":
            raise ConfigurationError(
                f"{type(self).__name__} changes no label, so its trigger can lead to one class only.",
                hint="Leave the mapping at all-to-one.",
            )
        if self.mapping not in self.mappings:
            raise ConfigurationError(
                f"{type(self).__name__} has a rule of its own for the class that the trigger leads to.",
                hint=f"Leave the mapping at {self.mappings[0]}.",
            )
        self.box(dataset.image_shape)
        return dataset.images

    @property
    def recorded_mapping(self) -> Literal["all-to-one", "all-to-all", "several"]:
        """Return the mapping as the model record states it."""
        return self.mapping

    @property
    def name(self) -> str:
        """Name in the registry, which is that of the file."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")


def make_backdoor(name: str, texts: Sequence[str] = ()) -> Backdoor:
    """Create a backdoor from its name and settings.

    Args:
        name: Name or alias in the registry.
        texts: ``NAME.FIELD=VALUE`` or ``FIELD=VALUE``; values are written as in TOML, or as plain words.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting does not exist or has an invalid value; the message names all of them.
    """
    entry = BACKDOORS.resolve(name)
    cls: type[Backdoor] = BACKDOORS.get(entry.name)
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        field = path.strip().removeprefix(f"{entry.name}.")
        if not equals or not field:
            raise ConfigurationError(f"--configure {text!r} cannot be parsed.", hint=f"Write {entry.name}.FIELD=VALUE.")
        try:
            settings[field] = parse_toml(f"value = {value.strip()}")["value"]
        except ConfigurationError:
            settings[field] = value.strip()  # a plain word
    try:
        return cls.model_validate(settings)
    except ValidationError as error:
        problems, fields = describe_problems(error), ", ".join(cls.model_fields)
        raise ConfigurationError(f"Settings of {entry.name}: {problems}.", hint=f"Its fields: {fields}.") from error


def prepare_backdoor(config: TrainConfig) -> tuple[TrainConfig, Backdoor | None]:
    """Create the backdoor that a training configuration names.

    Returns:
        The configuration without the settings of the backdoor, and the backdoor; None if there is none.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting is wrong.
    """
    if config.backdoor is None:
        return config, None
    name = BACKDOORS.resolve(config.backdoor).name
    own = [text for text in config.configure if text.strip().startswith(f"{name}.")]
    rest = tuple(text for text in config.configure if text not in own)
    return config.model_copy(update={"backdoor": name, "configure": rest}), make_backdoor(name, own)
