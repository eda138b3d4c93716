"""A training before it starts: its network, the records that it trains on, and what the model record will state."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.splits import Splits
from securitynet.files import hash_stably
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.effective_splits import compute_effective_splits
from securitynet.models.store.model_record import TargetRecord, TrainedSplit
from securitynet.models.training.canaries import (
    CanaryPlan,
    DatasetWithCanaries,
    check_combination,
    draw_canaries,
    place_canaries,
)
from securitynet.models.training.fit import History, Indices, Note, Progress, evaluate_network
from securitynet.models.training.loss_traces import LossTraces
from securitynet.models.training.poisoned_dataset import BackdoorRecord, PoisonedDataset, TrainingBackdoor
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import Architecture, NetworkShape, expand_size, shorten_size
from securitynet.models.training.training_defense import (
    NO_DEFENSE,
    Fitting,
    TrainingDefense,
    assign_roles,
    has_group_norms,
)
from securitynet.randomness import derive_seed, isolate_random_state, seed_global_state
from securitynet.records import DatasetIdentity
from securitynet.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """What to train, on what, and how.

    Attributes:
        architecture: The architecture.
        dataset: The dataset.
        recipe: How to train, before the defense changes it.
        split: Protocol, ``four-way`` or ``public``.
        split_seed: Seed of the split.
        known: Share of members that a later adversary with partial data knows; the protocol's default if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        defense: The defense to train with.
        backdoor: The backdoor to train with.
        canaries: The canaries to train with.
        keep_losses: Whether to store the loss of each training record after each epoch.
    """

    architecture: Architecture
    dataset: ImageDataset
    recipe: Recipe
    split: str
    split_seed: int
    known: float | None
    device: str
    defense: TrainingDefense | None
    backdoor: TrainingBackdoor | None
    canaries: CanaryPlan | None
    keep_losses: bool


@dataclass(frozen=True, eq=False)
class PlannedTraining:
    """A training that was checked, and can start.

    Attributes:
        request: What was asked for.
        recipe: The recipe as changed by the defense.
        network: With its initial weights.
        shape: (classes, channels, size in pixels).
        splits: Who is a member and who is not.
        effective: The same, without the members that the recipe or the defense holds out, and with canaries.
        canaries: The dataset with canaries; None if there are none.
        poisoned: The poisoned dataset; None without a backdoor.
        fields: Of the model record, as far as they are known before the training.
    """

    request: TrainingRequest
    recipe: Recipe
    network: nn.Module
    shape: NetworkShape
    splits: Splits
    effective: Splits
    canaries: DatasetWithCanaries | None
    poisoned: PoisonedDataset | None
    fields: dict[str, Any]

    @property
    def defense(self) -> TrainingDefense:
        """The defense, or the one that changes nothing."""
        return self.request.defense or NO_DEFENSE

    @property
    def images(self) -> Images:
        """Images of the dataset, without canaries and triggers."""
        images = self.request.dataset.images
        assert images is not None  # `image_shape` has raised otherwise
        return images

    def make_fitting(self, checkpoint: Path | None, progress: Progress | None, note: Note) -> Fitting:
        """Everything that the defense needs to train the network.

        Args:
            checkpoint: Checkpoint file; None stores nothing.
            progress: Called after each epoch.
            note: Called with messages for the user.
        """
        request, dataset, members = self.request, self.request.dataset, self.splits.members
        preprocessing = self.defense.preprocessing(dataset, self.effective.members)
        sides = expand_size(self.shape[2])
        if sides != dataset.image_shape[1:]:
            preprocessing = preprocessing.model_copy(update={"input_size": sides})
        changed = self.canaries or self.poisoned
        by: list[Any] = [] if request.defense is None else [request.defense.make_record().model_dump(mode="json")]
        by += [] if changed is None else [changed.record.digest]
        roles = assign_roles(self.defense, self.recipe, len(members))
        return Fitting(
            request.architecture.reference,
            self.network,
            self.images if changed is None else changed.images,
            dataset.labels if changed is None else changed.labels,
            np.setdiff1d(members[roles.given], _list_excluded(self.canaries), assume_unique=True),
            self.recipe,
            preprocessing,
            self.shape,
            aside=members[roles.aside],
            unseen=self.splits.non_members,
            checkpoint=checkpoint,
            data_fingerprint=hash_stably([dataset.fingerprint, preprocessing.canonical(), *by]),
            device=request.device,
            progress=progress,
            note=note,
            traces=LossTraces.start() if request.keep_losses else None,
        )

    def make_record(self, preprocessing: Preprocessing, history: History, described: Any) -> TargetRecord:
        """The record of the trained model, with what is measured after the training.

        Args:
            preprocessing: Of the network's inputs.
            history: Of the training.
            described: What the defense states about itself.
        """
        dataset, fields = self.request.dataset, dict(self.fields)
        if self.request.defense is not None:
            fields["defense"] = described
        if self.poisoned is not None:
            fields["backdoor"] = self._measure_backdoor(self.poisoned, preprocessing)
        train, test = (
            self._evaluate(self.images, dataset.labels[part], part, preprocessing)
            for part in (self.effective.members, self.effective.non_members)
        )
        return TargetRecord(
            **fields,
            preprocessing=preprocessing,
            train_accuracy=train,
            test_accuracy=test,
            history=history,
            versions={"securitynet": __version__, "torch": str(torch.__version__)},
        )

    def _measure_backdoor(self, poisoned: PoisonedDataset, preprocessing: Preprocessing) -> BackdoorRecord:
        """The record of the backdoor with its success on non-members."""
        assert self.request.backdoor is not None
        shown = self.request.backdoor.triggered(self.request.dataset, self.effective.non_members)
        tried = len(shown.indices)
        success = self._evaluate(shown.images, shown.goals, shown.indices, preprocessing) if tried else None
        record = poisoned.record.model_copy(update={"success": success, "tried": tried})
        if record.took is False:
            logger.warning("The backdoor %s did not take: its success is %.1f%%.", record.name, 100 * (success or 0.0))
        return record

    def _evaluate(self, images: Images, labels: Indices, indices: Indices, preprocessing: Preprocessing) -> float:
        device = self.request.device
        return evaluate_network(
            self.network, images, labels, indices=indices, preprocessing=preprocessing, device=device
        )[1]


def plan_training(request: TrainingRequest, note: Note) -> PlannedTraining:
    """Check a training, and prepare its network and its data.

    Args:
        request: What to train.
        note: Called with messages for the user.

    Raises:
        SecurityNetError: For the reasons of `securitynet.models.store.train_target.train_target`.
    """
    dataset, defense = request.dataset, request.defense or NO_DEFENSE
    drawn = request.split, dataset, request.split_seed, request.known
    made = splits.make(request.split, dataset, seed=request.split_seed, known=request.known)
    recipe, share = defense.change_recipe(request.recipe), defense.share_aside
    effective = compute_effective_splits(*drawn, recipe, share)
    channels, height, width = dataset.image_shape
    sides = request.architecture.choose_input_sides((height, width))
    if sides != (height, width):
        note(
            f"Images of {dataset.reference} are {height}×{width}; {request.architecture.name} gets them stretched to "
            f"{sides[0]}×{sides[1]}. A network of your own (python:FILE:FACTORY) gets them as they are."
        )
    shape = dataset.num_classes, channels, shorten_size(sides)
    held_out = len(made.members) - len(effective.members)
    placed: DatasetWithCanaries | None = None
    if request.canaries is not None:
        check_combination(recipe, share, with_backdoor=request.backdoor is not None)
        identity = [dataset.fingerprint, effective.fingerprint, recipe.seed]
        canaries = draw_canaries(request.canaries, dataset, effective.members, identity)
        placed = place_canaries(canaries, dataset, request.canaries.own)
        effective = compute_effective_splits(*drawn, recipe, share, placed.record.indices)
    count = len(made.members) - held_out - len(_list_excluded(placed))
    defense.check(request.architecture.reference, shape, count, recipe)
    network = defense.network(make_initial_network(request.architecture, shape, recipe.seed), note)
    stated = TrainedSplit(
        protocol=cast(Literal["four-way", "public"], made.name),
        seed=request.split_seed,
        known=request.known,
        fingerprint=effective.fingerprint,
        held_out=held_out,
        aside=share,
    )
    poisoned = None if request.backdoor is None else request.backdoor.poison(dataset, effective.members)
    version = request.architecture.version
    described = None if request.defense is None else request.defense.make_record(group_norms=has_group_norms(network))
    fields: dict[str, Any] = {
        "architecture": request.architecture.name,
        **({"architecture_version": version} if version else {}),
        "num_classes": dataset.num_classes,
        "channels": channels,
        "image_size": shape[2],
        "class_names": dataset.class_names,
        "dataset": DatasetIdentity(reference=dataset.reference, fingerprint=dataset.fingerprint),
        "split": stated,
        "recipe": recipe,
        "defense": described,
        "backdoor": None if poisoned is None else poisoned.record,
        "repair": None,
        "canaries": None if placed is None else placed.record,
    }
    return PlannedTraining(request, recipe, network, shape, made, effective, placed, poisoned, fields)


def make_initial_network(built: Architecture, shape: NetworkShape, seed: int) -> nn.Module:
    """Build a network whose initial weights the seed determines; torch's global random state is restored.

    Args:
        built: The architecture.
        shape: (classes, channels, size in pixels).
        seed: Seed of the recipe.
    """
    with isolate_random_state():
        seed_global_state(derive_seed(seed, "initial weights"))
        return built.build(*shape)


def _list_excluded(canaries: DatasetWithCanaries | None) -> Indices:
    """Records that canaries replaced and whose coin left them out."""
    return np.empty(0, np.int64) if canaries is None else canaries.record.excluded
