"""Train a target and store it: `train_target` for Python, `train_model` for a configuration.

The files that training writes are described in `securitynet.models.store.model_record`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

import securitynet.datasets
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError
from securitynet.models.sources.weights import read_state_dict, state_checksum
from securitynet.models.store.finished_training import find_finished, lacks_losses, remove_leftovers
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.planned_training import TrainingRequest, plan_training
from securitynet.models.store.record_files import check_path, save_trained_model
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.canaries import CanaryPlan, load_canary_images
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.fit import Note, Progress
from securitynet.models.training.loss_traces import write_loss_traces
from securitynet.models.training.poisoned_dataset import TrainingBackdoor
from securitynet.models.training.presets import RecipeName, get_recipe_fields
from securitynet.models.training.recipe import Recipe, change_recipe
from securitynet.models.training.trainable import find_architecture
from securitynet.models.training.training_defense import TrainingDefense, train_with_defense
from securitynet.records import Access

logger = logging.getLogger(__name__)


def train_target(
    architecture: str | Callable[..., nn.Module],
    dataset: ImageDataset | str,
    *,
    recipe: Recipe | RecipeName | None = None,
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
        recipe: How to train, or the name of a recipe (``fast``); by default ML-Doctor's recipe with the changes that
            ``defense`` recommends.
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
    if isinstance(recipe, str):
        changes, recipe = {**get_recipe_fields(recipe, built.name), **changes}, None
    if recipe is None and defense is not None:
        changes = {**defense.advised(changes), **changes}
    recipe = change_recipe(recipe or Recipe(), changes)
    data = securitynet.datasets.load(dataset) if isinstance(dataset, str) else dataset
    request = TrainingRequest(
        built,
        data,
        recipe,
        split=split,
        split_seed=split_seed,
        known=known,
        device=device,
        defense=defense,
        backdoor=backdoor,
        canaries=canaries,
        keep_losses=keep_losses,
    )
    file = None if out is None else Path(out)
    network, trained = _obtain(request, out=file, overwrite=overwrite, progress=progress, note=note)
    backend = ModuleBackend(
        network,
        reference=built.name if ":" in built.name else f"arch:{built.name}",
        checksum=state_checksum(network.state_dict(), built.identity),
        example_shape=(trained.channels, *trained.input_sides),
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
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> tuple[Path, TargetRecord]:
    """Train the model that a configuration describes, and write it.

    Args:
        config: The configuration.
        defense: The configured defense that it names: see `securitynet.defenses.base.make_training_defense`.
        backdoor: The configured backdoor that it names: see `securitynet.backdoors.base.prepare_backdoor`.
        dataset: The dataset that it names, if it is loaded already.
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
    if dataset is None:
        dataset = securitynet.datasets.load(config.dataset, **load_options(config))
    request = TrainingRequest(
        built,
        dataset,
        config.chosen_recipe,
        split=config.split,
        split_seed=config.split_seed,
        known=config.known,
        device=config.device,
        defense=defense,
        backdoor=backdoor,
        canaries=_plan_canaries(config, dataset),
        keep_losses=config.keep_losses,
    )
    _, trained = _obtain(request, out=config.weights_file, overwrite=config.overwrite, progress=progress, note=note)
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
    request: TrainingRequest, *, out: Path | None, overwrite: bool, progress: Progress | None, note: Note | None
) -> tuple[nn.Module, TargetRecord]:
    """The trained network and its record: read from ``out`` if they are there, otherwise trained."""
    note = note or logger.info
    planned = plan_training(request, note)
    network, checkpoint = planned.network, None
    if out is not None:
        check_path(out)
        checkpoint = CheckpointFile(out.with_suffix(".checkpoint"), note)
        done = find_finished(out, planned.fields, overwrite=overwrite, interrupted=checkpoint.exists)
        if done is not None and not (request.keep_losses and lacks_losses(out, done, overwrite=overwrite)):
            checkpoint.remove()
            note(f"{out} is complete already, with these settings; nothing is trained.")
            network.load_state_dict(read_state_dict(out)[0])
            return network.eval(), done
        remove_leftovers(out, checkpoint.path)
    fitting = planned.make_fitting(checkpoint.path if checkpoint else None, progress, note)
    history, described = train_with_defense(planned.defense, fitting)
    trained = planned.make_record(fitting.preprocessing, history, described)
    if out is not None and checkpoint is not None:
        if fitting.traces is not None:
            write_loss_traces(out, fitting.traces, trained.key)
        trained = save_trained_model(out, network.state_dict(), trained)
        for path in (checkpoint.path, *fitting.parts):
            CheckpointFile(path, note).remove()
    return network, trained
