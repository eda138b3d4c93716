"""Train a target and store it: `train_target` for Python, `train_model` for a configuration.

The files that training writes are described in `securitynet.models.store.model_record`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

import securitynet.datasets
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import stable_hash
from securitynet.models.sources.weights import read_state_dict, state_checksum
from securitynet.models.store.effective_splits import effective_splits
from securitynet.models.store.finished_training import find_finished, lacks_losses, remove_leftovers
from securitynet.models.store.model_record import TargetRecord, TrainedSplit
from securitynet.models.store.record_files import check_path, save_trained_model
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.canaries import (
    CanaryPlan,
    DatasetWithCanaries,
    check_combination,
    draw_canaries,
    load_canary_images,
    place_canaries,
)
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.fit import Indices, Note, Progress, evaluate
from securitynet.models.training.loss_traces import (
    LossTraces,
    write_loss_traces,
)
from securitynet.models.training.poisoned_dataset import TrainingBackdoor
from securitynet.models.training.recipe import Recipe, change_recipe
from securitynet.models.training.trainable import Architecture, find_architecture
from securitynet.models.training.training_defense import (
    NO_DEFENSE,
    Fitting,
    TrainingDefense,
    assign_parts,
    has_group_norms,
    train_with_defense,
)
from securitynet.randomness import derived_seed, isolated
from securitynet.records import Access, DatasetIdentity
from securitynet.version import __version__

logger = logging.getLogger(__name__)


def train_target(
    architecture: str | Callable[..., nn.Module],
    dataset: ImageDataset | str,
    *,
    recipe: Recipe | None = None,
    split: str = "four-way",
    split_seed: int = 0,
    known: float | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    note: Note | None = None,
    defense: TrainingDefense | None = None,
    backdoor: TrainingBackdoor | None = None,
    canaries: CanaryPlan | None = None,
    keep_losses: bool = False,
    **recipe_overrides: Any,
) -> Target:
    """Train a target on the members of a split.

    Images are normalised by mean and deviation of the training records. The weights of the last epoch are stored (see
    `fit` for early stopping). Non-members are used only once, at the end, for the test accuracy.

    Args:
        architecture: A name in `securitynet.models.architectures.ARCHITECTURES`, a reference, a factory or a network:
            see `securitynet.models.training.trainable`.
        dataset: A loaded dataset, or its reference.
        recipe: How to train; by default ML-Doctor's recipe with the changes that ``defense`` recommends.
        split: Protocol, ``four-way`` or ``public``.
        split_seed: Seed of the split.
        known: Share of members that a later adversary with partial data knows; the protocol's default if None.
        seed: Seed of the training, instead of the recipe's.
        out: Weights file to write, ``NAME.safetensors``; the model record goes to ``NAME.json`` beside it. A killed run
            resumes from its last checkpoint, and a complete one is not repeated. None stores nothing.
        overwrite: Whether to replace a file at ``out`` that holds another model.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Called after each epoch with (epochs done, epochs in all, history so far).
        note: Called with messages for the user (resumed, complete already); logged if None.
        defense: The defense to train with, such as `securitynet.defenses.dp_sgd.DpSgd`.
        backdoor: The backdoor to train with, such as `securitynet.backdoors.badnets.Badnets`.
        canaries: The canaries to train with, for `securitynet.assessments.audit.audit_model`.
        keep_losses: Whether to store the loss of each training record after each epoch beside ``out``; see
            `securitynet.models.training.loss_traces`.
        **recipe_overrides: Fields of the recipe to change, such as ``epochs=30``.

    Returns:
        The trained target under white-box access, emitting logits.

    Raises:
        UnknownName: If there is no such architecture or dataset.
        ConfigurationError: If a setting is invalid, or ``out`` holds another model.
        SplitError: If the dataset cannot be split in this way.
        ModelError: If the network cannot be built for the images or trained on them ("diverged").
    """
    built = find_architecture(architecture)
    changes = recipe_overrides if seed is None else {**recipe_overrides, "seed": seed}
    if recipe is None and defense is not None:
        changes = {**defense.advised(changes), **changes}
    recipe = change_recipe(recipe or Recipe(), changes)
    data = securitynet.datasets.load(dataset) if isinstance(dataset, str) else dataset
    network, trained = _obtain(
        built,
        data,
        recipe,
        split=split,
        split_seed=split_seed,
        known=known,
        out=None if out is None else Path(out),
        overwrite=overwrite,
        device=device,
        progress=progress,
        note=note,
        defense=defense,
        backdoor=backdoor,
        canaries=canaries,
        keep_losses=keep_losses,
    )
    backend = ModuleBackend(
        network,
        reference=built.name if ":" in built.name else f"arch:{built.name}",
        checksum=state_checksum(network.state_dict(), built.identity),
        example_shape=(trained.channels, trained.image_size, trained.image_size),
        device=resolve_device(device),
    )
    backend.num_classes = trained.num_classes
    backend.architecture = built.reference
    words = (
        f"trained here on {trained.dataset.reference} for {trained.epochs_run} epochs: train accuracy "
        f"{trained.train_accuracy:.4f}, test accuracy {trained.test_accuracy:.4f}"
    )
    return Target(backend, head="logits", preprocessing=trained.preprocessing, access=Access.WHITE_BOX, notes=(words,))


def train_model(
    config: TrainConfig,
    *,
    defense: TrainingDefense | None = None,
    backdoor: TrainingBackdoor | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> tuple[Path, TargetRecord]:
    """Train the model that a configuration describes, and write it.

    Args:
        config: The configuration.
        defense: The configured defense that it names: see `securitynet.defenses.base.training_defense`.
        backdoor: The configured backdoor that it names: see `securitynet.backdoors.base.prepare_backdoor`.
        progress: Called after each epoch with (epochs done, epochs in all, history so far).
        note: Called with messages for the user; logged if None.

    Returns:
        The weights file, and the model record beside it.

    Raises:
        SecurityNetError: For the reasons of `train_target`; whatever can be checked before the training is.
    """
    if config.defense is not None and (defense is None or defense.name != config.defense):
        raise ConfigurationError(f"The defense {config.defense} was not passed.")
    if config.backdoor is not None and backdoor is None:
        raise ConfigurationError(f"The backdoor {config.backdoor} was not passed.")
    built = find_architecture(config.architecture)
    check_path(config.weights_file)
    resolve_device(config.device)
    dataset = securitynet.datasets.load(config.dataset, **load_options(config))
    canaries = _plan_canaries(config, dataset)
    _, trained = _obtain(
        built,
        dataset,
        config.recipe,
        split=config.split,
        split_seed=config.split_seed,
        known=config.known,
        out=config.weights_file,
        overwrite=config.overwrite,
        device=config.device,
        progress=progress,
        note=note,
        defense=defense,
        backdoor=backdoor,
        canaries=canaries,
        keep_losses=config.keep_losses,
    )
    return config.weights_file, trained


def _plan_canaries(config: TrainConfig, dataset: ImageDataset) -> CanaryPlan | None:
    """The canaries of a configuration; None if it has none."""
    if config.canaries is None:
        if config.canary_images is None:
            return None
        raise ConfigurationError(
            "--canary-images holds canaries, and their number is missing.", hint="Give --canaries N too."
        )
    own = None if config.canary_images is None else load_canary_images(config.canary_images, dataset)
    return CanaryPlan(config.canaries, config.canary_kind, own)


def _obtain(
    built: Architecture,
    dataset: ImageDataset,
    recipe: Recipe,
    *,
    split: str,
    split_seed: int,
    known: float | None,
    out: Path | None,
    overwrite: bool,
    device: str,
    progress: Progress | None,
    note: Note | None,
    defense: TrainingDefense | None,
    backdoor: TrainingBackdoor | None,
    canaries: CanaryPlan | None,
    keep_losses: bool,
) -> tuple[nn.Module, TargetRecord]:
    """The trained network and its record: read from ``out`` if they are there, otherwise trained."""
    note = note or logger.info
    made = splits.make(split, dataset, seed=split_seed, known=known)
    applied = defense or NO_DEFENSE
    recipe, share = applied.change_recipe(recipe), applied.share_aside
    effective = effective_splits(split, dataset, split_seed, known, recipe, share)
    channels, height, width = dataset.image_shape
    if height != width:
        raise ModelError(
            f"The architectures take square images; those of {dataset.reference} are {height}×{width}.",
            hint="Resize them with --image-size N.",
        )
    shape = dataset.num_classes, channels, height
    held_out = len(made.members) - len(effective.members)
    placed: DatasetWithCanaries | None = None
    if canaries is not None:
        check_combination(recipe, share, with_backdoor=backdoor is not None)
        identity = [dataset.fingerprint, effective.fingerprint, recipe.seed]
        placed = place_canaries(draw_canaries(canaries, dataset, effective.members, identity), dataset, canaries.own)
        effective = effective_splits(split, dataset, split_seed, known, recipe, share, placed.record.indices)
    excluded = np.empty(0, np.int64) if placed is None else placed.record.excluded
    count = len(made.members) - held_out - len(excluded)
    applied.check(built.reference, shape, count, recipe)
    network = applied.network(make_initial_network(built, shape, recipe.seed), note)
    stated = TrainedSplit(
        protocol=cast(Literal["four-way", "public"], made.name),
        seed=split_seed,
        known=known,
        fingerprint=effective.fingerprint,
        held_out=held_out,
        aside=share,
    )
    poisoned = None if backdoor is None else backdoor.poison(dataset, effective.members)
    fields: dict[str, Any] = {
        "architecture": built.name,
        **({"architecture_version": built.version} if built.version else {}),
        "num_classes": dataset.num_classes,
        "channels": channels,
        "image_size": height,
        "class_names": dataset.class_names,
        "dataset": DatasetIdentity(reference=dataset.reference, fingerprint=dataset.fingerprint),
        "split": stated,
        "recipe": recipe,
        "defense": None if defense is None else defense.make_record(group_norms=has_group_norms(network)),
        "backdoor": None if poisoned is None else poisoned.record,
        "repair": None,
        "canaries": None if placed is None else placed.record,
    }
    checkpoint = None
    if out is not None:
        check_path(out)
        checkpoint = CheckpointFile(out.with_suffix(".checkpoint"), note)
        done = find_finished(out, fields, overwrite=overwrite, interrupted=checkpoint.exists)
        if done is not None and not (keep_losses and lacks_losses(out, done, overwrite=overwrite)):
            checkpoint.remove()
            note(f"{out} is complete already, with these settings; nothing is trained.")
            network.load_state_dict(read_state_dict(out)[0])
            return network.eval(), done
        remove_leftovers(out, checkpoint.path)
    preprocessing = applied.preprocessing(dataset, effective.members)
    images = dataset.images
    assert images is not None  # `image_shape` has raised otherwise
    changed = placed or poisoned
    by: list[Any] = [] if defense is None else [defense.make_record().model_dump(mode="json")]
    by += [] if changed is None else [changed.record.digest]
    roles = assign_parts(applied, recipe, len(made.members))
    fitting = Fitting(
        built.reference,
        network,
        images if changed is None else changed.images,
        dataset.labels if changed is None else changed.labels,
        np.setdiff1d(made.members[roles.given], excluded, assume_unique=True),
        recipe,
        preprocessing,
        shape,
        aside=made.members[roles.aside],
        unseen=made.non_members,
        checkpoint=checkpoint.path if checkpoint else None,
        data_fingerprint=stable_hash([dataset.fingerprint, preprocessing.canonical(), *by]),
        device=device,
        progress=progress,
        note=note,
        traces=LossTraces.start() if keep_losses else None,
    )
    history, described = train_with_defense(applied, fitting)
    if defense is not None:
        fields["defense"] = described

    def accuracy(indices: Indices) -> float:
        labels = dataset.labels[indices]
        return evaluate(network, images, labels, indices=indices, preprocessing=preprocessing, device=device)[1]

    if backdoor is not None and poisoned is not None:
        shown = backdoor.triggered(dataset, effective.non_members)
        hits, tried = 0.0, len(shown.indices)
        if tried:
            goals, where = shown.goals, shown.indices
            hits = evaluate(network, shown.images, goals, indices=where, preprocessing=preprocessing, device=device)[1]
        recorded = poisoned.record.model_copy(update={"success": hits if tried else None, "tried": tried})
        if recorded.took is False:
            logger.warning("The backdoor %s did not take: its success is %.1f%%.", recorded.name, 100 * hits)
        fields["backdoor"] = recorded
    trained = TargetRecord(
        **fields,
        preprocessing=preprocessing,
        train_accuracy=accuracy(effective.members),
        test_accuracy=accuracy(effective.non_members),
        history=history,
        versions={"securitynet": __version__, "torch": str(torch.__version__)},
    )
    if out is not None and checkpoint is not None:
        if fitting.traces is not None:
            write_loss_traces(out, fitting.traces, trained.key)
        trained = save_trained_model(out, network.state_dict(), trained)
        for path in (checkpoint.path, *fitting.parts):
            CheckpointFile(path, note).remove()
    return network, trained


def make_initial_network(built: Architecture, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Build a network whose initial weights the seed determines; torch's global random state is restored.

    Args:
        built: The architecture.
        shape: (classes, channels, size in pixels).
        seed: Seed of the recipe.
    """
    with isolated():
        torch.manual_seed(derived_seed(seed, "initial weights"))
        return built.build(*shape)
