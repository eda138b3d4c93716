"""Target, data and context from objects or references, to run one method without an assessment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securitynet.datasets import splits
from securitynet.datasets.given import load_given
from securitynet.datasets.members import Stated
from securitynet.errors import ConfigurationError
from securitynet.files import find_cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.architectures.in_process import register_factory
from securitynet.models.loading.examination import examine, require_constant
from securitynet.models.loading.load import load_target
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.models.training.trainable import find_architecture
from securitynet.records import Auxiliary, ThreatModel


def prepare_trial(
    model: Any,
    train: Any,
    test: Any = None,
    *,
    members: Stated | None = None,
    non_members: Stated | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    architecture: Any = None,
    limit: int | None = None,
    auxiliary: Any = None,
    split: str | None = None,
    known: float | None = None,
    split_seed: int = 0,
    seed: int = 0,
    allow_random: bool = False,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Target, TrialData, Context]:
    """The target, its data and the context of a method.

    Args:
        model: A network, a callable, a reference or a loaded target.
        train: The training data, or with ``members`` all records; see `load_given`.
        test: Data that the model was not trained on.
        members: The members, if there is one dataset.
        non_members: The non-members; by default all other records.
        mean: Mean of the normalisation, if the images are normalised already.
        std: Standard deviation of the normalisation, likewise.
        class_names: One per class.
        architecture: Architecture of shadow models and surrogates: a function or class that builds a network, a
            network, or a reference; by default the target's own, if it is known.
        limit: Largest number of records of each part.
        auxiliary: Another dataset, for adversaries with out-of-distribution data.
        split: ``public`` or ``four-way``; by default as the model was trained, else the parts that are given.
        known: Share of the records whose membership the adversary knows; the default of the split if None.
        split_seed: Seed of the split.
        seed: Seed of all randomness.
        allow_random: Average repeated outputs of a model that is not deterministic.
        cache: Folder for signals and trained models; the user's cache folder by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Called during long work.
        **options: Further arguments of `securitynet.models.loading.load.load_target`, such as ``normalize``.

    Raises:
        SecurityNetError: If the model, the data or an option is invalid.
    """
    cache = cache or find_cache_folder()
    data = load_given(
        train,
        test,
        members=members,
        non_members=non_members,
        mean=mean,
        std=std,
        class_names=class_names,
        limit=limit,
        cache=cache,
    )
    dataset = data.dataset
    if isinstance(model, Target):
        if options:
            raise ConfigurationError(f"The target is loaded already: {next(iter(options))} has no effect.")
        target = model
    else:
        target = load_target(
            model,
            dataset=dataset,
            transform=data.transform,
            allow_random=allow_random,
            cache=cache,
            device=device,
            **options,
        )
    if architecture is not None:
        name = architecture if isinstance(architecture, str) else register_factory(architecture)
        target.backend.architecture = find_architecture(name).reference
    target = examine(target, dataset, allow_random=allow_random)
    require_constant(target, allow_random=allow_random)
    weights = target.backend.weights
    trained = read_target_record(weights) if weights is not None else None
    if trained is not None and split is None and not dataset.members_stated:
        made = restore_splits(trained, dataset, known=known)
    else:
        made = splits.make(split or "public", dataset, seed=split_seed, known=known)
    other = None if auxiliary is None else load_given(auxiliary, cache=cache).dataset
    return target, TrialData(dataset, made, trained, other), Context(seed, cache, device, progress)


def choose_threat_model(
    candidates: Sequence[ThreatModel], target: Target, data: TrialData, *, needs_shadow_parts: bool = True
) -> ThreatModel:
    """The first threat model for which the target and its data suffice.

    Args:
        candidates: Threat models, the preferred one first.
        target: The target.
        data: Its data.
        needs_shadow_parts: Whether shadow data must be shadow parts of the split; see `Method.needs_shadow_parts`.

    Raises:
        ConfigurationError: If none can; the message names what each one lacks.
    """
    obstacles = []
    for threat_model in candidates:
        if not target.access.covers(threat_model.access):
            obstacles.append(f"{threat_model} needs {threat_model.access.value} access to the model")
        elif threat_model.auxiliary is Auxiliary.SHADOW and needs_shadow_parts and not len(data.splits.shadow_train):
            obstacles.append(f'{threat_model} needs shadow data (split="four-way")')
        elif threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION and data.auxiliary is None:
            obstacles.append(f"{threat_model} needs a dataset of another kind (auxiliary=...)")
        else:
            return threat_model
    raise ConfigurationError(f"This can't be run here: {'; '.join(obstacles)}.")
