"""Removal of records, tried and measured: the model is trained again without them, and without others as a control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.assessments.exposed_target import ExposedTarget, ReportProgress
from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.assessments.exposure_result import Removal, RetrainedModel
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.members import resolve_members
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError
from securitynet.metrics import paired, rates, roc, vulnerability
from securitynet.models.shadows import find_own_architecture
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.records import Direction

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Attacked:
    """LiRA on one of the three models.

    Attributes:
        above: Whether each judged record scores above the threshold, N.
        shares: Share of the original non-members that score at least as high as each judged record, N.
        correct: Whether each judged record is classified correctly, N.
        key: Key of the model in the store; None for the assessed target.
    """

    above: NDArray[np.bool_]
    shares: NDArray[np.float64]
    correct: NDArray[np.bool_]
    key: str | None


def choose_removed(config: ExposureConfig, trained: TargetRecord, dataset: ImageDataset) -> Indices | None:
    """Find the records that are to be removed; None if none are.

    Args:
        config: States them, in a file or as numbers separated by commas.
        trained: The model record.
        dataset: The dataset.

    Returns:
        Sorted records.

    Raises:
        SecurityNetError: If there are no such records, some are no members, too few members would be left, or the
            target's training set depends on more than its split.
    """
    stated = config.retrain_without
    if stated is None:
        return None
    _check_training(trained)
    members = restore_splits(trained, dataset).members
    names = dataset.record_names
    if names is None:
        names = [dataset.get_record_name(index) for index in range(len(dataset))]
    parts = [part.strip() for part in stated.split(",")]
    listed = [int(part) for part in parts] if all(part.isdecimal() and len(part) < 19 for part in parts) else stated
    records = resolve_members(listed, None, names, dataset.reference).members
    outside = np.setdiff1d(records, members)
    if len(outside):
        raise ConfigurationError(
            f"{len(outside)} of the {len(records)} records to remove are no members of the model, such as "
            f"{dataset.get_record_name(int(outside[0]))}.",
            hint="exposure.csv lists the members.",
        )
    if 2 * len(records) > len(members) - 2:
        raise ConfigurationError(
            f"{len(records)} of {len(members)} members are too many to remove: the control needs as many others.",
            hint="Name fewer records.",
        )
    return records


def try_removal(
    config: ExposureConfig,
    removed: Indices,
    trained: TargetRecord,
    exposed: ExposedTarget,
    report_progress: ReportProgress | None = None,
) -> Removal:
    """Train the model again without some records, and without as many other ones, and attack all three models.

    Recipe and seed are those of the target. The attack is LiRA with the target's shadow models, and the threshold of
    each model is that of the same non-members.

    Args:
        config: Names the false-positive rate and the seed of the control.
        removed: The records, from `choose_removed`.
        trained: The model record.
        exposed: The target and its shadow models.
        report_progress: Called during the trainings.
    """
    members, indices = exposed.data.splits.members, exposed.signals.indices
    rest = np.setdiff1d(members, removed, assume_unique=True)
    order = shuffle(len(rest), "members removed as a control", config.seed)
    others = np.sort(rest[order[: len(removed)]])
    models: list[_Attacked] = [_attack(exposed.target, None, config, exposed)]
    for number, gone in enumerate((removed, others)):
        left = np.setdiff1d(members, gone, assume_unique=True)
        spec = _make_spec(trained, exposed, left)
        epochs = spec.recipe.epochs

        def report(done: int, before: int = number * epochs, total: int = 2 * epochs) -> None:
            if report_progress is not None:
                report_progress("epochs without records", before + done, total)

        model = obtain_model(spec, kind="retrained", cache=exposed.cache, device=config.device, progress=report)
        models.append(_attack(model.target, model.key, config, exposed))
    before, after, control = models
    is_removed = np.isin(indices, removed)
    in_all = np.isin(indices, np.setdiff1d(rest, others, assume_unique=True))
    outside = ~np.isin(indices, members)

    def describe(model: _Attacked) -> RetrainedModel:
        return RetrainedModel(
            identified=int(model.above[is_removed].sum()),
            median_share=float(np.median(model.shares[is_removed])),
            accuracy=rates.rate(
                "accuracy",
                int(model.correct[outside].sum()),
                int(outside.sum()),
                direction=Direction.HIGHER,
                level=config.level,
            ),
            rest_identified=int(model.above[in_all].sum()),
            weights=model.key,
        )

    return Removal(
        records=tuple(removed.tolist()),
        before=describe(before),
        after=describe(after),
        control=describe(control),
        rest=int(in_all.sum()),
        accuracy_change=paired.measure_paired_difference(
            "accuracy-change",
            after.correct[outside],
            before.correct[outside],
            direction=Direction.HIGHER,
            level=config.level,
        ),
        rest_change=paired.measure_paired_difference(
            "rest-change", after.above[in_all], control.above[in_all], direction=Direction.LOWER, level=config.level
        ),
    )


def _check_training(trained: TargetRecord) -> None:
    obstacles = {
        "with canaries": trained.canaries is not None,
        "with a backdoor": trained.backdoor is not None,
        "with early stopping": trained.recipe.patience > 0,
        "with a defense that sets records aside": trained.split.aside > 0,
    }
    for what, applies in obstacles.items():
        if applies:
            raise ConfigurationError(
                f"The model was trained {what}, and can't be trained again without single records.",
                hint="Leave --retrain-without out.",
            )


def _make_spec(trained: TargetRecord, exposed: ExposedTarget, members: Indices) -> ModelSpec:
    architecture = find_own_architecture(exposed.target, trained)
    assert architecture is not None  # the record names one
    dataset = exposed.data.dataset
    return ModelSpec(
        dataset,
        members,
        dataset.labels[members],
        dataset.num_classes,
        architecture.reference,
        trained.recipe,
        defense=exposed.data.defense,
    )


def _attack(target: Target, key: str | None, config: ExposureConfig, exposed: ExposedTarget) -> _Attacked:
    signals = collect_signals(target, exposed.data.dataset, exposed.signals.indices, cache=exposed.cache)
    scores = exposed.attack_with_lira(signals)
    shares = roc.count_share(scores[~exposed.is_member], scores)
    above = vulnerability.identify(scores[None], exposed.is_member[None], config.fpr)[0]
    return _Attacked(above, shares, signals.correct, key)
