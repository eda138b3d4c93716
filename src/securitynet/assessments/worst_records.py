"""The risk of the worst records of a training, with or without a defense: canaries and the most exposed members.

Aerni, Zhang and Tramèr, "Evaluations of machine learning privacy defenses are misleading" (CCS 2024, sections 3 and 4):
an average over all records hides the few that a defense leaves exposed. The model is trained several times with the
same defense. All its members are in every training set, except for the audited records, each of which is included if a
fair coin says so. Each training in turn has the role of the target, and the others are its shadow models: they know the
defense, or their outputs pass through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership.label_only_lira import LabelOnlyLira, query_agreement
from securitynet.attacks.membership.lira import LiRA
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle, unite
from securitynet.datasets.splits import Splits
from securitynet.errors import ConfigurationError
from securitynet.metrics import trainings
from securitynet.models.store.cached_model import ModelSpec, StoredModel
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import AugmentName, Recipe
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.randomness import derive_seed
from securitynet.records import Direction
from securitynet.results.document import WorstCase

FEWEST_TRAININGS = 4
"""With fewer, too few are left to be the shadow models of one of them."""

MOST_AUDITED = 500
"""Largest number of canaries, and of exposed members (Aerni et al. take 500 canaries)."""

AUDITED_SHARE = 0.1
"""Largest share of the members that canaries replace, and that the exposed members make up."""

FEWEST_AUDITED = 8

LABEL_VIEWS = 9
"""Views of each record that are classified where only labels are returned."""

FPRS = (0.1, 0.05)
"""False-positive rates that few records resolve, besides those of the configuration."""

Indices = NDArray[np.int64]
OutputDefenseOf = Callable[[Target, Splits], Target]
"""Puts one of the trained models, with the splits of its members, behind an output defense."""


@dataclass(frozen=True, eq=False)
class AuditedRecords:
    """The records that are in about half of the trainings.

    Attributes:
        records: Members of the target, sorted, N.
        labels: Labels they are trained with, N: a wrong one for canaries.
        is_canary: Whether each is a canary; the others are the most exposed members, N.
        coins: Whether each is meant to be in each training set, M×N.
    """

    records: Indices
    labels: Indices
    is_canary: NDArray[np.bool_]
    coins: NDArray[np.bool_]

    @property
    def canaries(self) -> Indices:
        """The records that canaries replace."""
        return self.records[self.is_canary]


def choose_audited_records(
    dataset: ImageDataset, members: Indices, exposed: Indices, count: int, seed: int
) -> AuditedRecords:
    """Choose canaries and exposed members, and toss the coins.

    Canaries are members with a wrong label, which a network has to learn by heart. The exposed members come from the
    assessment of the target, which is none of the trainings: numbers that they show are not chosen by the same numbers.

    Args:
        dataset: The dataset.
        members: Members of the target.
        exposed: Members, the most exposed first; empty if no attack ranked them.
        count: Number of trainings.
        seed: The only source of randomness.

    Raises:
        ConfigurationError: If there are too few members or classes.
    """
    number = min(MOST_AUDITED, int(len(members) * AUDITED_SHARE))
    if number < FEWEST_AUDITED or dataset.num_classes < 2:
        raise ConfigurationError(
            f"Of {len(members)} members, too few could be audited: {FEWEST_AUDITED} canaries take "
            f"{round(FEWEST_AUDITED / AUDITED_SHARE)} members."
        )
    natural = np.sort(exposed[:number])
    rest = np.setdiff1d(members, natural)
    canaries = np.sort(rest[shuffle(len(rest), "canaries of defenses", seed)[:number]])
    records = unite(natural, canaries)
    is_canary = np.isin(records, canaries)
    random = np.random.PCG64(derive_seed(seed, "audited records"))
    labels = dataset.labels[records].copy()
    others = (random.random_raw(len(records)) % np.uint64(dataset.num_classes - 1)).astype(np.int64) + 1
    labels[is_canary] = (labels + others)[is_canary] % dataset.num_classes
    coins = (random.random_raw(count * len(records)) >> np.uint64(63)).astype(bool).reshape(count, len(records))
    return AuditedRecords(records, labels, is_canary, coins)


def plan_trainings(
    dataset: ImageDataset,
    members: Indices,
    audited: AuditedRecords,
    architecture: str,
    recipe: Recipe,
    defense: TrainingDefense | None,
    seed: int,
) -> list[ModelSpec]:
    """Specifications of the trainings with one defense.

    A defense that sets records aside takes none of the audited ones.

    Args:
        dataset: The dataset.
        members: Members of the target.
        audited: The audited records, with a row of coins for each training.
        architecture: What the models are built from; see `securitynet.models.training.trainable`.
        recipe: The recipe; each training has a seed of its own.
        defense: The defense; None for none.
        seed: Determines the seeds.
    """
    labels = dataset.labels.copy()
    labels[audited.records] = audited.labels
    natural = np.setdiff1d(members, audited.records)
    specs = []
    for number, coins in enumerate(audited.coins):
        own = recipe.model_copy(update={"seed": derive_seed(seed, "training of a defense", number)})
        indices = np.setdiff1d(members, audited.records[~coins])
        aside = None
        if defense is not None and defense.share_aside > 0:
            order = shuffle(len(natural), "set aside", own.seed)
            aside = np.sort(natural[order[: round(len(indices) * defense.share_aside)]])
            indices = np.setdiff1d(indices, aside)
        specs.append(
            ModelSpec(
                dataset, indices, labels[indices], dataset.num_classes, architecture, own, defense=defense, aside=aside
            )
        )
    return specs


def measure_worst_case(
    models: Sequence[StoredModel],
    audited: AuditedRecords,
    dataset: ImageDataset,
    splits: Splits,
    *,
    behind: OutputDefenseOf | None = None,
    augment: AugmentName = "none",
    fprs: Sequence[float] = (),
    level: float = 0.95,
    cache: Path | None = None,
) -> WorstCase:
    """Attack the audited records of each training with the others as shadow models, and measure the utility.

    The attack is LiRA on the posterior of the class that the record is trained with. Where only labels are returned, it
    is LiRA on which slightly changed copies get this class.

    Args:
        models: The trained models of `plan_trainings`, M.
        audited: The audited records.
        dataset: The dataset.
        splits: Splits of the target.
        behind: Puts each model behind an output defense; None for none.
        augment: Augmentation of the recipe, which the copies follow.
        fprs: False-positive rates; the lowest that the records resolve is taken, 0.05 and 0.1 included.
        level: Confidence level of the intervals.
        cache: Folder for signals.

    Raises:
        SecurityNetError: If the outputs can't be attacked.
    """
    attack = LiRA()
    signals, included, groups, hits = [], [], [], []
    for model in models:
        natural = np.setdiff1d(model.members, audited.canaries)
        known = np.intersect1d(splits.known_members, natural)
        target = model.target
        if behind is not None:
            target = behind(target, replace(splits, members=natural, known_members=known))
        outputs = collect_signals(target, dataset, unite(audited.records, natural, splits.non_members), cache=cache)
        if outputs.head == "labels":
            signals.append(
                query_agreement(target, dataset, augment, LABEL_VIEWS, audited.records, audited.labels, cache)
            )
            confidence = outputs.correct.astype(np.float64)
        else:
            signals.append(attack.signal(outputs.select(audited.records).logits, audited.labels))
            confidence = attack.signal(outputs.logits, outputs.labels)
        included.append(np.isin(audited.records, model.members))
        groups.append(tuple(confidence[np.isin(outputs.indices, part)] for part in (natural, splits.non_members)))
        hits.append(outputs.select(splits.non_members).correct.sum())
    inside = np.stack(included)
    judged = inside | ~audited.coins  # what early stopping held out is neither a member nor a non-member
    outside = ~inside & judged
    count = int(min(outside[:, group].sum() for group in _groups(audited)))
    fpr = trainings.choose_fpr(count, len(models), tuple({*FPRS, *(rate for rate in fprs if rate > 0)}), level)
    stacked = np.stack(signals)
    measured = {}
    for name, group in zip(("canaries", "exposed"), _groups(audited), strict=False):
        scores = (attack if stacked.ndim == 2 else LabelOnlyLira()).score_leave_one_out(
            stacked[..., group], inside[:, group]
        )
        measured[name] = trainings.measure_mean_tpr(
            scores, inside[:, group], judged[:, group], fpr, level=level, name=f"{name}.tpr@fpr={fpr:g}"
        )
    accuracy = trainings.measure_mean_rate(
        "test_accuracy", np.array(hits, dtype=float), len(splits.non_members), direction=Direction.HIGHER, level=level
    )
    return WorstCase(
        trainings=len(models),
        records=len(audited.records),
        fpr=fpr,
        canaries=measured["canaries"],
        exposed=measured.get("exposed"),
        average_auc=trainings.measure_mean_auc("auc", [(one, other) for one, other in groups], level=level),
        accuracy=accuracy,
    )


def _groups(audited: AuditedRecords) -> list[NDArray[np.bool_]]:
    """Masks of the canaries and, if there are any, of the exposed members."""
    return [audited.is_canary] if audited.is_canary.all() else [audited.is_canary, ~audited.is_canary]
