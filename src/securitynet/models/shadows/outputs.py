"""Outputs of shadow models for records, and whether each was trained on them: what LiRA, RMIA and others start from."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffled
from securitynet.datasets.splits import Splits
from securitynet.errors import AccessDenied, SplitError
from securitynet.models.shadows.fidelity import Accuracies, compare
from securitynet.models.shadows.plan import ResolvedTraining, ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow, shadow_spec, train_shadow
from securitynet.models.store.cached_model import Epochs, ModelSpec, StoredModel, check_images
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.targets.signals import Progress, collect
from securitynet.models.targets.target import Target
from securitynet.models.training.training_defense import TrainingDefense

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ShadowOutputs:
    """Outputs of M shadow models for N records of K classes.

    Attributes:
        included: Whether shadow model m was trained on record n, M×N.
        outputs: Logits of shadow model m for record n, M×N×K float32: 4·M·N·K bytes, all in memory.
        labels: True classes of the records, N.
        fidelity: Warnings of the comparison with the target; empty if the shadow models are like it.
    """

    included: NDArray[np.bool_]
    outputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    fidelity: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ShadowModel:
    """One shadow model trained on the shadow-train part (ML-Doctor, section 3.1).

    Attributes:
        shadow: The model and its members.
        non_members: The shadow-test part, which it never saw.
        fidelity: Warnings of the comparison with the target; empty if it is like it.
    """

    shadow: StoredModel
    non_members: NDArray[np.int64]
    fidelity: tuple[str, ...]


def shadow_outputs(
    target: Target,
    dataset: ImageDataset,
    splits: Splits,
    records: NDArray[np.int64],
    plan: ShadowPlan,
    *,
    trained: TargetRecord | None = None,
    defense: TrainingDefense | None = None,
    cache: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> ShadowOutputs:
    """Train the shadow models of a plan, or take them from the store, and ask them about records.

    The target is asked about members and non-members, to compare its accuracy with theirs.

    Args:
        target: Any; black-box access is enough.
        dataset: That of the target, with images.
        splits: Who is a member of the target.
        records: Which records, N; their order is kept.
        plan: How many shadow models, and how they are trained.
        trained: How the target was trained, where that is known.
        defense: The defense that ``trained`` names.
        cache: Folder of the store and of signals; None keeps nothing.
        seed: Decides training sets and seeds.
        device: Where to train.
        progress: Called with (epochs done, epochs in all) over all shadow models.

    Raises:
        AccessDenied: If the target answers with labels only.
        SecurityNetError: If shadow models cannot be trained on this dataset, or diverge; see `obtain_shadow`.
    """
    check_images(dataset)
    _check_scores(target)
    pool = plan.records(splits)
    chosen = plan.training_sets(len(pool), seed)
    training = resolve_training(plan, target, trained, defense)
    specs = plan_specs(dataset, splits, plan, training, seed)
    for spec in specs:
        check_shadow(spec)
    epochs = training.recipe.epochs
    included = np.zeros((plan.count, len(records)), dtype=bool)
    outputs = np.empty((plan.count, len(records), dataset.num_classes), dtype=np.float32)
    accuracies = []
    for number in range(plan.count):
        shadow = train_shadow(
            specs[number],
            cache=cache,
            device=device,
            progress=_after(progress, number * epochs, plan.count * epochs),
        )
        signals = collect(restrict_like(shadow.target, target), dataset, np.union1d(pool, records), cache=cache)
        accuracies.append(Accuracies.of(signals, shadow.members, pool[~chosen[number]]))
        included[number] = np.isin(records, shadow.members)
        outputs[number] = signals.select(records).logits
    if progress:
        progress(plan.count * epochs, plan.count * epochs)
    fidelity = compare(target_accuracies(target, dataset, splits, cache), accuracies, training.assumptions)
    return ShadowOutputs(included, outputs, dataset.labels[records], _logged(fidelity))


def plan_specs(
    dataset: ImageDataset, splits: Splits, plan: ShadowPlan, training: ResolvedTraining, seed: int
) -> list[ModelSpec]:
    """The shadow models of a plan, as they are wanted of the store.

    A defense that takes some of the records for something else takes them from outside the pool and the judged records
    where that can be: each record of the pool is then in as many training sets as ever, and known to be in a model's
    training set or not.
    """
    pool = plan.records(splits)
    chosen = plan.training_sets(len(pool), seed)
    share = training.defense.share_aside if training.defense else 0.0
    outside = np.setdiff1d(np.arange(len(dataset)), np.concatenate([pool, splits.members, splits.non_members]))
    specs = []
    for number in range(plan.count):
        records, recipe, aside = pool[chosen[number]], training.seeded(seed, number), None
        wanted = round(len(records) * share / (1 - share))
        # Who knows shadow data only can't have what lies outside: their models set aside some of their own.
        if plan.pool == "online" and 2 <= wanted <= len(outside):
            aside = np.sort(outside[shuffled(len(outside), "set aside", recipe.seed)[:wanted]])
        specs.append(shadow_spec(dataset, records, training.architecture, recipe, training.defense, aside))
    return specs


def shadow_model(
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
    """The shadow model trained on the whole shadow-train part; arguments and errors as for `shadow_outputs`.

    Raises:
        SplitError: If the split has no shadow parts.
    """
    check_images(dataset)
    _check_scores(target)
    if min(len(splits.shadow_train), len(splits.shadow_test)) == 0:
        raise SplitError(
            f"The {splits.name} split has no shadow data to train a shadow model on.", hint="Use --split four-way."
        )
    resolved = resolve_training(training, target, trained, defense)
    shadow = train_shadow(
        part_spec(dataset, splits, resolved, seed),
        cache=cache,
        device=device,
        progress=_after(progress, 0, resolved.recipe.epochs),
    )
    shadow = replace(shadow, target=restrict_like(shadow.target, target))
    signals = collect(shadow.target, dataset, np.union1d(shadow.members, splits.shadow_test), cache=cache)
    accuracies = Accuracies.of(signals, shadow.members, splits.shadow_test)
    fidelity = compare(target_accuracies(target, dataset, splits, cache), [accuracies], resolved.assumptions)
    return ShadowModel(shadow, splits.shadow_test, _logged(fidelity))


def part_spec(dataset: ImageDataset, splits: Splits, training: ResolvedTraining, seed: int) -> ModelSpec:
    """The one shadow model on the shadow-train part, as it is wanted of the store."""
    return shadow_spec(dataset, splits.shadow_train, training.architecture, training.seeded(seed, 0), training.defense)


def target_accuracies(target: Target, dataset: ImageDataset, splits: Splits, cache: Path | None) -> Accuracies:
    """Accuracy of a target on its members and non-members; from the cache where its signals are known."""
    judged = np.union1d(splits.members, splits.non_members)
    signals = collect(target, dataset, judged, cache=cache)
    return Accuracies.of(signals, splits.members, splits.non_members)


def _check_scores(target: Target) -> None:
    """Raise `AccessDenied` before models are trained that could not be compared with the target."""
    if target.interface is not None and target.head == "labels":
        raise AccessDenied(
            f"{target.reference}: shadow models would be compared with posteriors, and only labels are answered."
        )


def _after(progress: Progress | None, before: int, total: int) -> Epochs | None:
    return None if progress is None else lambda done: progress(before + done, total)


def _logged(fidelity: tuple[str, ...]) -> tuple[str, ...]:
    for warning in fidelity:
        logger.warning("%s", warning)
    return fidelity


def restrict_like(shadow: Target, target: Target) -> Target:
    """A shadow model behind the interface of the target: an adversary who imitates the target imitates that as well."""
    return shadow if target.interface is None else shadow.through(target.interface)
