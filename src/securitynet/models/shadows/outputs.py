"""Outputs of shadow models for records, and which models were trained on them: the input of LiRA, RMIA and others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.datasets.splits import Splits
from securitynet.errors import AccessDenied, SplitError
from securitynet.models.shadows.fidelity import Accuracies, list_fidelity_warnings
from securitynet.models.shadows.plan import ResolvedTraining, ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow, specify_shadow, train_shadow, train_shadows
from securitynet.models.store.cached_model import ModelSpec, StoredModel, check_images
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.training_cost import check_training_cost
from securitynet.models.targets.signals import Progress, collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.training_defense import TrainingDefense

logger = logging.getLogger(__name__)

SIZE_TOLERANCE = 0.1
"""Share by which the training sets of shadow models may differ in size from the target's without a note."""

Reduction = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]
"""Maps the logits of one model, N×K, and the true classes, N, to one number per record, N."""


@dataclass(frozen=True, eq=False)
class ShadowOutputs:
    """Outputs of M shadow models for N records of K classes.

    Attributes:
        included: Whether shadow model m was trained on record n, M×N.
        outputs: Logits of shadow model m for record n, M×N×K float32: 4·M·N·K bytes, all in memory. With a
            `Reduction`, what it makes of them for each of V views of the records, M×V×N float64.
        labels: True classes of the records, N.
        fidelity: Warnings of the comparison with the target; empty if the shadow models resemble it.
    """

    included: NDArray[np.bool_]
    outputs: NDArray[np.floating]
    labels: NDArray[np.int64]
    fidelity: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ShadowModel:
    """One shadow model trained on the shadow-train part (ML-Doctor, section 3.1).

    Attributes:
        shadow: The model and its members.
        non_members: The shadow-test part, on which it was not trained.
        fidelity: Warnings of the comparison with the target; empty if the model resembles it.
    """

    shadow: StoredModel
    non_members: NDArray[np.int64]
    fidelity: tuple[str, ...]


def obtain_shadow_outputs(
    target: Target,
    dataset: ImageDataset,
    splits: Splits,
    records: NDArray[np.int64],
    plan: ShadowPlan,
    *,
    reduce: Reduction | None = None,
    views: Sequence[ImageDataset] = (),
    labels_only: bool = False,
    trained: TargetRecord | None = None,
    defense: TrainingDefense | None = None,
    cache: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> ShadowOutputs:
    """Train the shadow models of a plan, or load them from the store, and compute their outputs for records.

    Before any training, the target is queried for members and non-members, to compare its accuracy with theirs: images
    that it does not take are refused at once.

    Args:
        target: The target; black-box access is enough.
        dataset: The target's dataset, with images.
        splits: The members of the target, and the other roles.
        records: Records, N; the outputs have the same order.
        plan: Number of shadow models, and how they are trained.
        reduce: Applied to the outputs of each model as they come, so that those of all models are never in memory
            together; None returns the logits.
        views: With ``reduce``: copies of the dataset with changed images, V − 1, for which outputs are computed too.
        labels_only: With ``reduce``: it uses the predicted class alone, which no interface changes. The shadow models
            are then not put behind that of the target.
        trained: Record of the target's training, if known.
        defense: The defense that ``trained`` names.
        cache: Folder of the store and of signals; None stores nothing.
        seed: Determines training sets and seeds.
        device: Where to train.
        progress: Called with (epochs done, epochs in all) over all shadow models.

    Raises:
        AccessDenied: If the target reveals labels only, unless ``labels_only`` is set.
        TargetError: If the target does not take the images.
        SecurityNetError: If shadow models cannot be trained on this dataset, or diverge; see `obtain_shadow`.
    """
    check_images(dataset)
    if not labels_only:
        _check_scores(target)
    pool = plan.records(splits)
    labels = dataset.labels[records]
    training = resolve_training(plan, target, trained, defense)
    specs = plan_specs(dataset, splits, plan, training, seed)
    for spec in specs:
        check_shadow(spec)
    check_training_cost(specs, kind="shadows", cache=cache, device=device)
    expected = compute_target_accuracies(target, dataset, splits, cache)
    included = np.zeros((plan.count, len(records)), dtype=bool)
    outputs: list[NDArray[np.floating]] = []
    accuracies = []
    for number, shadow in enumerate(train_shadows(specs, cache=cache, device=device, progress=progress)):
        model = shadow.target if labels_only else restrict_like(shadow.target, target)
        wanted = np.union1d(np.union1d(pool, records), shadow.members)
        signals = collect_signals(model, dataset, wanted, cache=cache)
        left_out = np.setdiff1d(pool, specs[number].indices, assume_unique=True)
        accuracies.append(Accuracies.of(signals, shadow.members, left_out))
        included[number] = np.isin(records, shadow.members)
        logits = signals.select(records).logits
        del signals
        if reduce is None:
            outputs.append(logits)
            continue
        reduced = [reduce(logits, labels)]
        del logits
        for view in views:
            reduced.append(
                reduce(collect_signals(model, view, np.unique(records), cache=cache).select(records).logits, labels)
            )
        outputs.append(np.stack(reduced))
    fidelity = list_fidelity_warnings(expected, accuracies, training.assumptions)
    notes = (*_logged(fidelity), *_compare_sizes(specs, splits, plan, len(dataset)))
    return ShadowOutputs(included, np.stack(outputs), labels, notes)


def _compare_sizes(specs: Sequence[ModelSpec], splits: Splits, plan: ShadowPlan, records: int) -> tuple[str, ...]:
    """Return a note if the shadow models are trained on many more or fewer records than the target."""
    size, members = round(float(np.mean([len(spec.indices) for spec in specs]))), len(splits.members)
    if members == 0 or abs(size - members) <= SIZE_TOLERANCE * members:
        return ()
    note = f"The shadow models are trained on {size:,} records each and the target on {members:,}"
    if size > members:
        return (f"{note}.",)
    possible = plan.count_independent(splits, records)
    if plan.design == "balanced" and possible > (1 + SIZE_TOLERANCE) * size:
        return (f'{note}. With shadows.design = "independent" they would be trained on {possible:,}.',)
    return (f"{note}: the {splits.name} split and their design provide no more.",)


def plan_specs(
    dataset: ImageDataset, splits: Splits, plan: ShadowPlan, training: ResolvedTraining, seed: int
) -> list[ModelSpec]:
    """Specifications of the shadow models of a plan.

    A defense that sets records aside takes them from outside the pool and the judged records if possible. Each record
    of the pool is then in as many training sets as without the defense, and it is known which ones.

    Args:
        dataset: The target's dataset.
        splits: The members of the target, and the other roles.
        plan: Number of shadow models, and how they are trained.
        training: The resolved training.
        seed: Determines training sets and seeds.
    """
    pool = plan.records(splits)
    share = training.defense.share_aside if training.defense else 0.0
    outside = np.setdiff1d(np.arange(len(dataset)), np.concatenate([pool, splits.members, splits.non_members]))
    specs = []
    for number, records in enumerate(plan.draw_training_sets(splits, len(dataset), seed)):
        recipe, aside = training.seeded(seed, number), None
        wanted = round(len(records) * share / (1 - share))
        # An adversary with shadow data only has no other records: these models set aside some of their own.
        if plan.pool == "online" and 2 <= wanted <= len(outside):
            aside = np.sort(outside[shuffle(len(outside), "set aside", recipe.seed)[:wanted]])
        specs.append(
            specify_shadow(
                dataset, records, training.architecture, recipe, training.defense, aside, training.input_size
            )
        )
    return specs


def obtain_shadow_model(
    target: Target,
    dataset: ImageDataset,
    splits: Splits,
    training: ShadowTraining,
    *,
    trained: TargetRecord | None = None,
    defense: TrainingDefense | None = None,
    cache: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> ShadowModel:
    """Train the shadow model for the whole shadow-train part, or load it from the store.

    Args:
        target: The target; black-box access is enough.
        dataset: The target's dataset, with images.
        splits: The members of the target, and the other roles.
        training: How to train.
        trained: Record of the target's training, if known.
        defense: The defense that ``trained`` names.
        cache: Folder of the store and of signals; None stores nothing.
        seed: Determines the seed of the training.
        device: Where to train.
        progress: Called with (epochs done, epochs in all).

    Raises:
        AccessDenied: If the target reveals labels only.
        SplitError: If the split has no shadow parts.
        TargetError: If the target does not take the images.
        SecurityNetError: If the shadow model cannot be trained on this dataset, or diverges.
    """
    check_images(dataset)
    _check_scores(target)
    if min(len(splits.shadow_train), len(splits.shadow_test)) == 0:
        raise SplitError(
            f"The {splits.name} split has no shadow data to train a shadow model on.", hint="Use --split four-way."
        )
    resolved = resolve_training(training, target, trained, defense)
    spec = make_part_spec(dataset, splits, resolved, seed)
    check_shadow(spec)
    expected = compute_target_accuracies(target, dataset, splits, cache)
    shadow = train_shadow(
        spec,
        cache=cache,
        device=device,
        progress=None if progress is None else lambda done: progress(done, resolved.recipe.epochs),
    )
    shadow = replace(shadow, target=restrict_like(shadow.target, target))
    signals = collect_signals(shadow.target, dataset, np.union1d(shadow.members, splits.shadow_test), cache=cache)
    accuracies = Accuracies.of(signals, shadow.members, splits.shadow_test)
    fidelity = list_fidelity_warnings(expected, [accuracies], resolved.assumptions)
    return ShadowModel(shadow, splits.shadow_test, _logged(fidelity))


def make_part_spec(dataset: ImageDataset, splits: Splits, training: ResolvedTraining, seed: int) -> ModelSpec:
    """Specification of the one shadow model for the shadow-train part.

    Args:
        dataset: The target's dataset.
        splits: The members of the target, and the other roles.
        training: The resolved training.
        seed: Determines the seed of the training.
    """
    return specify_shadow(
        dataset,
        splits.shadow_train,
        training.architecture,
        training.seeded(seed, 0),
        training.defense,
        input_size=training.input_size,
    )


def compute_target_accuracies(target: Target, dataset: ImageDataset, splits: Splits, cache: Path | None) -> Accuracies:
    """Accuracies of a target on its members and non-members, from the cache if its signals are there.

    Args:
        target: The target.
        dataset: Its dataset.
        splits: Its members and non-members.
        cache: Folder of signals; None queries the target.
    """
    judged = np.union1d(splits.members, splits.non_members)
    signals = collect_signals(target, dataset, judged, cache=cache)
    return Accuracies.of(signals, splits.members, splits.non_members)


def _check_scores(target: Target) -> None:
    """Raise `AccessDenied`, before any training, if the shadow models could not be compared with the target."""
    if target.interface is not None and target.head == "labels":
        raise AccessDenied(
            f"{target.reference}: shadow models would be compared with posteriors, and the target reveals labels only."
        )


def _logged(fidelity: tuple[str, ...]) -> tuple[str, ...]:
    for warning in fidelity:
        logger.warning("%s", warning)
    return fidelity


def restrict_like(shadow: Target, target: Target) -> Target:
    """Put a shadow model behind the interface of the target, as an adversary would who compares their outputs."""
    return shadow if target.interface is None else shadow.through(target.interface)
