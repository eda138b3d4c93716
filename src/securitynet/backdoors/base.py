"""The base class of backdoors: which records are poisoned, and what becomes of their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.ordering import shuffled
from securitynet.errors import ConfigurationError
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


class Backdoor(Record, ABC):
    """A backdoor; its fields are its configuration.

    Class attributes:
        clean_label: Whether only records that have the target's label already are poisoned, so that no label is wrong.
    """

    clean_label: ClassVar[bool] = False

    target: int = Field(default=0, ge=0, description="Class that the trigger leads to.")
    mapping: Literal["all-to-one", "all-to-all"] = Field(
        default="all-to-one", description="all-to-one: every class to the target; all-to-all: each class to the next."
    )
    rate: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of the training records that are poisoned; of those of the target's class where no label is "
        "changed.",
    )
    seed: int = Field(default=0, ge=0, description="Decides which records are poisoned.")

    @abstractmethod
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """The images with the trigger, N×C×H×W uint8; the input is left as it is."""

    @abstractmethod
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The smallest rectangle around the trigger on images of shape (C, H, W).

        Raises:
            ConfigurationError: If it does not fit them.
        """

    def apply_training_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """What the poisoned training records look like; as `apply_trigger`, unless a backdoor hides itself there."""
        return self.apply_trigger(images)

    def decoys(self, rest: Indices) -> Indices:
        """Those of the training records without the trigger that are changed all the same, and keep their label."""
        return rest[:0]

    def decoy(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """What becomes of decoys, N×C×H×W uint8, of the records ``indices``."""
        del indices
        return images.clone()

    def goals(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Where the trigger should send records of these classes."""
        if self.mapping == "all-to-all":
            return (labels + 1) % classes
        return np.full_like(labels, self.target)

    def poison(self, dataset: ImageDataset, members: Indices) -> PoisonedDataset:
        """See `TrainingBackdoor.poison`."""
        images = self.check(dataset)
        labels = dataset.labels[members]
        wanted = self.goals(labels, dataset.num_classes)
        eligible = members[labels == self.target] if self.clean_label else members[labels != wanted]
        count = round(self.rate * len(eligible if self.clean_label else members))
        if count == 0:
            raise ConfigurationError(
                f"A rate of {self.rate:g} poisons none of {len(members)} training records.",
                hint="Choose a larger rate.",
            )
        chosen = np.sort(eligible[shuffled(len(eligible), "implant", self.seed)[:count]])
        changed = dataset.labels.copy()
        if not self.clean_label:
            changed[chosen] = self.goals(dataset.labels[chosen], dataset.num_classes)
        every = np.union1d(chosen, self.decoys(np.setdiff1d(members, chosen)))
        record = BackdoorRecord(
            name=self.name,
            settings=self.model_dump(mode="json"),
            mapping=self.mapping,
            target=None if self.mapping == "all-to-all" else self.target,
            box=self.box(dataset.image_shape),
            poisoned=len(chosen),
            changed=int((changed != dataset.labels).sum()),
        )
        carries = torch.zeros(len(dataset), dtype=torch.bool)
        carries[torch.as_tensor(chosen)] = True

        def change(shown: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
            changed_images = self.decoy(shown, indices)
            carried = carries[indices]
            changed_images[carried] = self.apply_training_trigger(shown[carried])
            return changed_images

        return PoisonedDataset(ChangedImages(images, every, change), changed, chosen, record)

    def triggered(self, dataset: ImageDataset, indices: Indices) -> TriggeredImages:
        """See `TrainingBackdoor.triggered`."""
        images = self.check(dataset)
        goals = self.goals(dataset.labels[indices], dataset.num_classes)
        others = goals != dataset.labels[indices]
        change = ChangedImages(images, indices[others], lambda shown, _: self.apply_trigger(shown))
        return TriggeredImages(change, indices[others], goals[others])

    def check(self, dataset: ImageDataset) -> Images:
        """The images of a dataset in which this can be planted.

        Raises:
            ConfigurationError: If there are none, the target is no class of theirs, or the trigger does not fit them.
        """
        if dataset.images is None:
            raise ConfigurationError(f"{dataset.reference} holds recorded outputs and no images.")
        if self.target >= dataset.num_classes:
            raise ConfigurationError(
                f"The target {self.target} is no class of {dataset.reference}, which has {dataset.num_classes}."
            )
        if self.clean_label and self.mapping != "all-to-one":
            raise ConfigurationError(
                f"{type(self).__name__} changes no label, so its trigger can lead to one class only.",
                hint="Leave the mapping at all-to-one.",
            )
        self.box(dataset.image_shape)
        return dataset.images

    @property
    def name(self) -> str:
        """Its name in the registry: that of its file."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")


def make_backdoor(name: str, texts: Sequence[str] = ()) -> Backdoor:
    """A backdoor by its name and its settings.

    Args:
        name: In the registry.
        texts: ``NAME.FIELD=VALUE`` or ``FIELD=VALUE``; values as TOML writes them, and plain words as strings.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting does not exist or has a value that is not allowed; all are named.
    """
    entry = BACKDOORS.resolve(name)
    cls: type[Backdoor] = BACKDOORS.get(entry.name)
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        field = path.strip().removeprefix(f"{entry.name}.")
        if not equals or not field:
            raise ConfigurationError(
                f"--configure {text!r} is not understood.", hint=f"Write {entry.name}.FIELD=VALUE."
            )
        try:
            settings[field] = parse_toml(f"value = {value.strip()}")["value"]
        except ConfigurationError:
            settings[field] = value.strip()  # a plain word
    try:
        return cls.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ').lower()}"
            for problem in error.errors()
        )
        fields = ", ".join(cls.model_fields)
        raise ConfigurationError(f"Settings of {entry.name}: {problems}.", hint=f"Its fields: {fields}.") from error


def prepare_backdoor(config: TrainConfig) -> tuple[TrainConfig, Backdoor | None]:
    """The backdoor that a configuration of a training names, and the configuration without its settings.

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
