"""`TrainingDefense`: the base class of training defenses, and the records that describe their effect.

A training defense changes the recipe, the network or the training steps. The same object trains the target, the shadow
models of an adversary who knows the defense, and the models of the report's section "what would help".
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
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.dp_sgd import Privacy
from securitynet.models.training.fit import History, Note, Progress, Targets, fit, hold_out_positions
from securitynet.models.training.loss_traces import LossTraces
from securitynet.models.training.pixel_statistics import fit_normalization
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure
from securitynet.models.training.trainable import NetworkShape, build_trainable
from securitynet.randomness import derive_seed, isolate_random_state, make_generator
from securitynet.records import Record

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]


class Teacher(Record):
    """The model that a student was distilled from.

    Attributes:
        architecture: Name in `securitynet.models.architectures.ARCHITECTURES`.
        weights: Number of weights of the teacher.
        student_weights: Number of weights of the student.
        train_accuracy: Accuracy of the teacher on its training records, in [0, 1].
        test_accuracy: Accuracy of the teacher on the non-members, in [0, 1].
        agreement: Share of the non-members for which both predict the same class.
        records: Number of non-members.
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
        name: Name in the registry of defenses.
        settings: Fields of the defense.
        group_norms: Whether batch norms were replaced with group norms; the weights fit such a network only.
        set_aside: Number of training records used for another purpose; they are neither members nor non-members.
        privacy: Privacy budget that DP-SGD spent.
        teacher: Teacher of a distilled student.
        notes: Remarks for the reader of the record.
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
        """The record without the results of the training."""
        return DefenseRecord(name=self.name, settings=self.settings, group_norms=self.group_norms)


@dataclass(frozen=True, eq=False)
class Fitting:
    """A training to run, with everything that a defense needs for it.

    Attributes:
        architecture: The architecture of ``network``; see `securitynet.models.training.trainable`.
        network: The network with its initial weights; it is trained in place.
        images: Images of the dataset.
        labels: Labels of the dataset, one per image.
        indices: Records to train on.
        recipe: The recipe as changed by the defense.
        preprocessing: Applied to images before the network.
        shape: (classes, channels, size in pixels), for further networks.
        aside: Records that the defense set aside.
        unseen: Non-members, used for reporting only.
        checkpoint: Checkpoint file; None stores nothing.
        data_fingerprint: Digest that stands for images, indices and preprocessing in the checkpoint's fingerprint.
        device: Where to train.
        progress: Called after each epoch.
        note: Called with messages for the user.
        parts: Checkpoints of further models, which are removed when the training is complete.
        traces: Filled with the losses of ``network`` on its training records; None keeps none.
    """

    architecture: str
    network: nn.Module
    images: Images
    labels: NDArray[np.int64]
    indices: Indices
    recipe: Recipe
    preprocessing: Preprocessing
    shape: NetworkShape
    aside: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    unseen: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    checkpoint: Path | None = None
    data_fingerprint: str | None = None
    device: str | torch.device = "auto"
    progress: Progress | None = None
    note: Note = logger.info
    parts: list[Path] = field(default_factory=list)
    traces: LossTraces | None = None

    def fresh(self, architecture: str, purpose: str) -> nn.Module:
        """Build a further network for the same images and classes.

        Args:
            architecture: Name of the architecture.
            purpose: Determines the initial weights, together with the seed of the recipe.
        """
        classes, channels, size = self.shape
        with isolate_random_state():
            torch.manual_seed(derive_seed(self.recipe.seed, f"initial weights {purpose}"))
            return build_trainable(architecture, classes, channels, size)

    def fit(self, procedure: Procedure | None = None, targets: Targets | None = None, **changes: Any) -> History:
        """Train the network with a procedure, on labels or other targets.

        Args:
            procedure: Processing of each batch; None for the standard step.
            targets: One per record of ``indices``; their labels if None.
            **changes: Attributes of this object to change for this call.
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
            traces=wanted.traces if wanted.network is self.network else None,  # not those of a teacher
        )

    def part(self, name: str) -> Path | None:
        """Path of the checkpoint of a further model that this training needs; None if nothing is stored."""
        if self.checkpoint is None:
            return None
        path = self.checkpoint.with_name(f"{self.checkpoint.name}.{name}")
        self.parts.append(path)
        return path


class Defense(Record, ABC):
    """A defense; its fields are its configuration.

    Class attributes:
        stage: Whether it changes the training of a target, its outputs, or the weights of a trained model.
        sweep: Settings to try in "what would help", from weak to strong.
    """

    stage: ClassVar[Literal["training", "output", "repair"]]
    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({},)


class TrainingDefense(Defense):
    """A defense that changes how a target is trained. Each method is one hook; by default it changes nothing.

    Class attributes:
        stage: Always ``training``.
        accountable: Whether the training accounts for a privacy budget, so that nothing else may use the records.
    """

    stage: ClassVar[Literal["training", "output", "repair"]] = "training"
    accountable: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name in the registry: that of the file, with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def check(self, architecture: str, shape: NetworkShape, records: int, recipe: Recipe) -> None:
        """Check, before any work, that this training is possible.

        Args:
            architecture: Architecture to train.
            shape: (classes, channels, size in pixels).
            records: Number of training records, without those set aside.
            recipe: The recipe as changed by the defense.

        Raises:
            ConfigurationError: If the training is impossible.
        """

    def advised(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """Recommended recipe fields, used where the user states none.

        Args:
            stated: Fields that the user stated; none of them may be in the result.
        """
        return {}

    def change_recipe(self, recipe: Recipe) -> Recipe:
        """Change the recipe as this defense needs it. The operation must be idempotent."""
        return recipe

    @property
    def share_aside(self) -> float:
        """Share of the training records that the defense sets aside for another purpose, in [0, 1)."""
        return 0.0

    def preprocessing(self, dataset: ImageDataset, indices: Indices) -> Preprocessing:
        """Preprocessing before the network; by default normalisation by the statistics of the training records.

        Args:
            dataset: The dataset.
            indices: Its training records.
        """
        return fit_normalization(dataset, indices)

    def network(self, network: nn.Module, note: Note) -> nn.Module:
        """Adapt a newly built network; returns the network to train, with its initial weights.

        Args:
            network: The newly built network.
            note: Called with messages for the user.
        """
        return network

    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        """Train ``fitting.network``.

        Returns:
            The history, and fields of `DefenseRecord` with results of the training.
        """
        return fitting.fit(), {}

    def make_record(self, **outcome: Any) -> DefenseRecord:
        """Create the part of the model record that describes this defense.

        Args:
            **outcome: Fields of `DefenseRecord` with results of the training.
        """
        return DefenseRecord(name=self.name, settings=self.model_dump(mode="json"), **outcome)

    def match_record(self, record: DefenseRecord) -> TrainingDefense:
        """The defense for shadow models of a target that was trained with this one; by default the same defense.

        Args:
            record: The defense in the target's model record.
        """
        return self


class NoDefense(TrainingDefense):
    """No defense: lets trainings with and without a defense use the same code."""


NO_DEFENSE: Final = NoDefense()


@dataclass(frozen=True, eq=False)
class Parts:
    """Roles of the records of a training, as sorted positions.

    Attributes:
        given: Records passed to the trainer: those to train on, and those that early stopping holds out.
        training: Records to train on, the members.
        aside: Records that the defense set aside.
    """

    given: Indices
    training: Indices
    aside: Indices


def assign_roles(defense: TrainingDefense, recipe: Recipe, count: int) -> Parts:
    """Assign the roles of the records of a training.

    Args:
        defense: The defense; `NO_DEFENSE` for none.
        recipe: The recipe as changed by the defense; its seed determines the roles.
        count: Number of records.

    Raises:
        ConfigurationError: If there are too few records to set aside or hold out.
    """
    given, aside = set_aside(count, defense.share_aside, recipe.seed)
    training = given[hold_out_positions(len(given), recipe)[0]] if recipe.patience else given
    return Parts(given, training, aside)


def train_with_defense(defense: TrainingDefense, fitting: Fitting) -> tuple[History, DefenseRecord]:
    """Train a network with a defense, and record what the defense did.

    ``fitting`` must have been prepared by the same defense: `TrainingDefense.change_recipe`, `assign_roles`,
    `TrainingDefense.preprocessing` and `TrainingDefense.network`.
    """
    history, outcome = defense.fit(fitting)
    norms = has_group_norms(fitting.network)
    return history, defense.make_record(group_norms=norms, **{**outcome, "set_aside": len(fitting.aside)})


def set_aside(count: int, share: float, seed: int) -> tuple[Indices, Indices]:
    """Split positions into records to train on and records that a defense sets aside, each sorted.

    Args:
        count: Number of training records.
        share: Share to set aside, in [0, 1).
        seed: Seed of the choice.

    Raises:
        ConfigurationError: If one part would have fewer than two records.
    """
    number = round(count * share)
    everything = np.arange(count, dtype=np.int64)
    if share == 0:
        return everything, everything[:0]
    if number < 2 or count - number < 2:
        raise ConfigurationError(f"Of {count} training records, {share:.0%} cannot be set aside.")
    order = torch.randperm(count, generator=make_generator(seed, "set aside")).numpy().astype(np.int64)
    return np.sort(order[number:]), np.sort(order[:number])


def count_trained_weights(network: nn.Module) -> int:
    """Number of weights of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def has_group_norms(network: nn.Module) -> bool:
    """Whether a network has group norms, with which DP-SGD replaces batch norms."""
    return any(isinstance(layer, nn.GroupNorm) for layer in network.modules())
