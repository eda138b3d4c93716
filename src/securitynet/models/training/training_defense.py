"""`TrainingDefense`: what a defense may change in a training, and the records that state what it did.

A defense changes the recipe, the network or the training steps. The same object trains the target, the shadow models of
an adversary who knows of the defense, and the models of "what would help".
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from securitynet.datasets.base import ImageDataset, Images
from securitynet.errors import ConfigurationError
from securitynet.models.architectures.factory import build
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.dp_sgd import Privacy
from securitynet.models.training.fit import History, Note, Progress, Targets, fit, held_out
from securitynet.models.training.pixel_statistics import standardising
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure
from securitynet.randomness import derived_seed, generator, isolated
from securitynet.records import Record

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]


class Teacher(Record):
    """The model that a student was distilled from.

    Attributes:
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`.
        weights: How many it has.
        student_weights: How many the student has.
        train_accuracy: Of the teacher, on its training records.
        test_accuracy: On the non-members.
        agreement: Share of the non-members that both classify alike.
        records: How many non-members there were.
    """

    architecture: str
    weights: int
    student_weights: int
    train_accuracy: float
    test_accuracy: float
    agreement: float
    records: int


class DefenseRecord(Record):
    """The part of a model record that describes the defense the model was trained with.

    Attributes:
        name: In the registry of defenses.
        settings: Its fields.
        group_norms: Whether batch norms were replaced by group norms: the weights are those of such a network.
        set_aside: Training records that were used for something else, and are neither members nor non-members.
        privacy: What DP-SGD spent.
        teacher: Of a distilled student.
        notes: What a reader should know.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    group_norms: bool = False
    set_aside: int = 0
    privacy: Privacy | None = None
    teacher: Teacher | None = None
    notes: tuple[str, ...] = ()

    @property
    def requested(self) -> DefenseRecord:
        """Without what only the training showed."""
        return DefenseRecord(name=self.name, settings=self.settings, group_norms=self.group_norms)


@dataclass(frozen=True, eq=False)
class Fitting:
    """A training that is wanted, with all that a defense needs for it.

    Attributes:
        architecture: Of ``network``.
        network: With its initial weights; it is trained in place.
        images: Of the dataset.
        labels: Of the dataset, one per image.
        indices: Records to train on.
        aside: Records that the defense set aside.
        unseen: Non-members, only to report on; they train nothing and choose nothing.
        recipe: As the defense changed it.
        preprocessing: Between images and network.
        shape: (classes, channels, size), for further networks.
        checkpoint: File; None keeps nothing.
        data_fingerprint: See `fit`.
        device: Where.
        progress: Told after each epoch.
        note: Told what the user should know.
        parts: Checkpoints of further models, to be removed when all is done.
    """

    architecture: str
    network: nn.Module
    images: Images
    labels: NDArray[np.int64]
    indices: Indices
    recipe: Recipe
    preprocessing: Preprocessing
    shape: tuple[int, int, int]
    aside: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    unseen: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    checkpoint: Path | None = None
    data_fingerprint: str | None = None
    device: str | torch.device = "auto"
    progress: Progress | None = None
    note: Note = logger.info
    parts: list[Path] = field(default_factory=list)

    def fresh(self, architecture: str, purpose: str) -> nn.Module:
        """A further network for the same images and classes, whose initial weights seed and purpose decide."""
        classes, channels, size = self.shape
        with isolated():
            torch.manual_seed(derived_seed(self.recipe.seed, f"initial weights {purpose}"))
            return build(architecture, classes, channels, size)

    def fit(self, procedure: Procedure | None = None, targets: Targets | None = None, **changes: Any) -> History:
        """Train the network, by a procedure, on labels or on other targets.

        Args:
            procedure: What is done with each batch; the usual step if None.
            targets: One per record of ``indices``; their labels if None.
            **changes: Attributes of this fitting to change for this once.
        """
        wanted = replace(self, **changes)
        return fit(
            wanted.network,
            wanted.images,
            wanted.labels[wanted.indices] if targets is None else targets,
            wanted.recipe,
            indices=wanted.indices,
            preprocessing=wanted.preprocessing,
            checkpoint=wanted.checkpoint,
            data_fingerprint=wanted.data_fingerprint,
            device=wanted.device,
            progress=wanted.progress,
            note=wanted.note,
            procedure=procedure,
        )

    def part(self, name: str) -> Path | None:
        """The checkpoint file of a further model that this training needs."""
        if self.checkpoint is None:
            return None
        path = self.checkpoint.with_name(f"{self.checkpoint.name}.{name}")
        self.parts.append(path)
        return path


class Defense(Record, ABC):
    """A defense; its fields are its configuration.

    Class attributes:
        stage: Whether it changes how a target is trained, or what it answers.
        sweep: Settings worth trying, for "what would help"; from gentle to strong.
    """

    stage: ClassVar[Literal["training", "output"]]
    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({},)


class TrainingDefense(Defense):
    """A defense that changes how a target is trained. By default nothing changes: each method is one thing to change.

    Class attributes:
        accountable: Whether a training reports on what it spent, so that nothing may look at the records besides it.
    """

    stage: ClassVar[Literal["training", "output"]] = "training"
    accountable: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """In the registry of defenses: that of its file, with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def check(self, architecture: str, shape: tuple[int, int, int], records: int, recipe: Recipe) -> None:
        """Raise `ConfigurationError` before any work if this can't be done.

        Args:
            architecture: To be trained.
            shape: (classes, channels, size).
            records: Training records, without those set aside.
            recipe: As changed.
        """

    def advised(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a recipe that suit it, for whoever states no others.

        Args:
            stated: The fields that were stated; none of them is in what is returned.
        """
        return {}

    def change_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe, as this defense wants it. Doing it twice changes nothing further."""
        return recipe

    @property
    def share_aside(self) -> float:
        """Share of the training records that it takes for something else, in [0, 1)."""
        return 0.0

    def preprocessing(self, dataset: ImageDataset, indices: Indices) -> Preprocessing:
        """Between images and network: normalisation by the training records, where nothing speaks against it."""
        return standardising(dataset, indices)

    def network(self, network: nn.Module, note: Note) -> nn.Module:
        """The network to train, with its initial weights, made of a fresh one."""
        return network

    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        """Train ``fitting.network``.

        Returns:
            The history, and fields of `DefenseRecord` that follow from the training.
        """
        return fitting.fit(), {}

    def make_record(self, **outcome: Any) -> DefenseRecord:
        """The part of the model record about this defense.

        Args:
            **outcome: Fields of `DefenseRecord` that follow from the training.
        """
        return DefenseRecord(name=self.name, settings=self.model_dump(mode="json"), **outcome)

    def imitate(self, record: DefenseRecord) -> TrainingDefense:
        """The defense with which an adversary trains shadow models of a target that was trained with this one.

        Args:
            record: From the target's model record.
        """
        return self


class NoDefense(TrainingDefense):
    """An ordinary training, so that trainings with and without a defense take the same path."""


NO_DEFENSE: Final = NoDefense()


@dataclass(frozen=True, eq=False)
class Parts:
    """Which of the records of a training do what.

    Attributes:
        given: Positions that the training gets, sorted: those that train, and those that early stopping holds out.
        training: Positions of the records that train, the members.
        aside: Positions that the defense takes for something else.
    """

    given: Indices
    training: Indices
    aside: Indices


def parts(defense: TrainingDefense, recipe: Recipe, count: int) -> Parts:
    """Who does what in a training on so many records.

    Args:
        defense: `NO_DEFENSE` for none.
        recipe: As the defense changed it; its seed decides.
        count: Records.

    Raises:
        ConfigurationError: If there are too few records to set some aside, or to hold some out.
    """
    given, aside = set_aside(count, defense.share_aside, recipe.seed)
    training = given[held_out(len(given), recipe)[0]] if recipe.patience else given
    return Parts(given, training, aside)


def train_with_defense(defense: TrainingDefense, fitting: Fitting) -> tuple[History, DefenseRecord]:
    """Train a network with a defense, and describe what the defense did.

    ``fitting`` must have been prepared by the same defense: `TrainingDefense.change_recipe`, `parts`,
    `TrainingDefense.preprocessing` and `TrainingDefense.network`.
    """
    history, outcome = defense.fit(fitting)
    norms = has_group_norms(fitting.network)
    return history, defense.make_record(group_norms=norms, **{**outcome, "set_aside": len(fitting.aside)})


def set_aside(count: int, share: float, seed: int) -> tuple[Indices, Indices]:
    """Positions of records that train, and of those that a defense takes for something else; each sorted.

    Args:
        count: Training records in all.
        share: That is taken; 0 takes none.
        seed: Decides which.

    Raises:
        ConfigurationError: If one of them would hold fewer than two records.
    """
    number = round(count * share)
    everything = np.arange(count, dtype=np.int64)
    if share == 0:
        return everything, everything[:0]
    if number < 2 or count - number < 2:
        raise ConfigurationError(f"Of {count} training records, {share:.0%} cannot be set aside.")
    order = torch.randperm(count, generator=generator(seed, "set aside")).numpy().astype(np.int64)
    return np.sort(order[number:]), np.sort(order[:number])


def count_weights(network: nn.Module) -> int:
    """Numbers that training decides."""
    return sum(parameter.numel() for parameter in network.parameters())


def has_group_norms(network: nn.Module) -> bool:
    """Whether a network has group norms, as those have that DP-SGD trained in place of batch norms."""
    return any(isinstance(layer, nn.GroupNorm) for layer in network.modules())
