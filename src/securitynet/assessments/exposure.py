"""Exposure of single records: leave-one-out LiRA over the stored shadow models, loss traces, groups, and removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import securitynet.datasets
from securitynet.assessments.audit import read_architecture
from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.assessments.exposure_result import RankingReliability, RecordExposure, RecordsExposure
from securitynet.assessments.exposure_sentences import describe_exposure
from securitynet.assessments.removal import choose_removed, try_removal
from securitynet.assessments.training_defense import defense_of
from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._confidence import log_confidence, scaled_confidence
from securitynet.attacks.membership._leave_one_out import score_each_model
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import cache_folder
from securitynet.methods.data import TrialData
from securitynet.metrics import groups, rates, roc, vulnerability
from securitynet.models.loading.load import load_target
from securitynet.models.shadows import ShadowOutputs, ShadowPlan, shadow_outputs
from securitynet.models.store.model_record import TargetRecord, read_target_record, trained_splits
from securitynet.models.targets.signals import Signals, collect
from securitynet.models.targets.target import Target
from securitynet.models.training.loss_traces import LossTraces, read_loss_traces
from securitynet.records import Measurement

SHOWN = 12
"""Records that the result names; the table has all members."""

ReportProgress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of it is done."""


@dataclass(frozen=True, eq=False)
class ExposedTarget:
    """An assessed target with the signals that its exposure is computed from.

    Attributes:
        target: The target.
        data: Its dataset, split and training.
        signals: Its outputs for the N judged records.
        is_member: Whether it was trained on each of them, N.
        shadows: Scaled confidence under the shadow models, M×1×N, and which records they were trained on.
        scores: LiRA's scores under the target, N.
        cache: Folder of stored models and signals.
    """

    target: Target
    data: TrialData
    signals: Signals
    is_member: NDArray[np.bool_]
    shadows: ShadowOutputs
    scores: NDArray[np.float64]
    cache: Path

    @property
    def threshold(self) -> Callable[[float], float]:
        """The threshold of a false-positive rate: records above it are identified as members."""
        others = np.sort(self.scores[~self.is_member])
        return lambda fpr: float(others[len(others) - 1 - roc.allowed(fpr, len(others))])


def measure_exposure(
    config: ExposureConfig, report_progress: ReportProgress | None = None
) -> tuple[RecordsExposure, list[RecordExposure]]:
    """Measure the exposure of the records of a trained model.

    Args:
        config: The configuration.
        report_progress: Called during long work.

    Returns:
        The result, and the exposure of every member, the most exposed first.

    Raises:
        SecurityNetError: If the model has no record, the dataset is another one, or there are too few non-members for
            the false-positive rate.
    """
    trained = read_target_record(config.weights)
    if trained is None:
        raise ModelError(
            f"{config.weights} is not a weights file with a model record beside it.",
            hint="Train it with `securitynet train`, or assess it with `securitynet assess`.",
        )
    dataset = securitynet.datasets.load(config.dataset or trained.dataset.reference, **load_options(config))
    columns = choose_columns(dataset, config.by)
    removed = choose_removed(config, trained, dataset)
    exposed = prepare_target(config, trained, dataset, report_progress)
    indices, member = exposed.signals.indices, exposed.is_member
    included = exposed.shadows.included
    each = score_each_model(exposed.shadows.outputs[:, 0].astype(np.float64), included, balanced=True)
    found = vulnerability.measure_vulnerability(each, included, fpr=config.fpr, share=config.top_share)
    reliability = vulnerability.measure_reliability(each, included, config.top_share, level=config.level)
    traces = read_loss_traces(config.weights, trained.key)
    records = list(_describe_records(exposed, found, traces, config.level))
    records.sort(key=lambda r: (r.accused / max(r.non_member_of, 1) - r.identified / max(r.member_of, 1), r.share))
    threshold = exposed.threshold(config.fpr)
    chosen = {name: (values[indices], names) for name, (values, names) in columns.items()}
    compared = groups.compare_groups(exposed.scores, member, threshold, chosen, level=config.level)
    removal = None
    if removed is not None:
        removal = try_removal(
            config,
            removed,
            trained,
            exposed.data,
            exposed.shadows,
            indices,
            exposed.cache,
            exposed.target,
            report_progress,
        )
    result = RecordsExposure(
        weights_checksum=trained.weights_checksum,
        dataset=dataset.reference,
        members=int(member.sum()),
        non_members=int((~member).sum()),
        shadow_models=len(included),
        fpr=config.fpr,
        top_share=config.top_share,
        level=config.level,
        measurements=tuple(_measure_target(exposed, config)),
        reliability=RankingReliability(
            value=reliability.value,
            non_members=reliability.non_members,
            difference_low=reliability.difference_low,
            difference_high=reliability.difference_high,
            pairs=reliability.pairs,
        ),
        significant=int((found.p_values <= 1 - config.level).sum()),
        most_exposed=tuple(records[:SHOWN]),
        groups=tuple(compared),
        removal=removal,
        notes=exposed.shadows.fidelity,
    )
    return result.model_copy(update={"sentences": tuple(describe_exposure(result))}), records


def choose_columns(dataset: ImageDataset, by: tuple[str, ...]) -> dict[str, groups.Column]:
    """Collect the columns whose groups are compared: the class, and the attributes that are named, or all.

    Args:
        dataset: The dataset.
        by: Names of attributes, or ``class``; empty for all.

    Raises:
        ConfigurationError: If the dataset has no such attribute.
    """
    columns: dict[str, groups.Column] = {"class": (dataset.labels, dataset.class_names)}
    columns |= {name: (attribute.values, attribute.names) for name, attribute in dataset.attributes.items()}
    for name in by:
        if name not in columns:
            raise ConfigurationError(
                f"{dataset.reference} has no attribute {name!r}.", hint=f"It has: {', '.join(columns)}."
            )
    return {name: columns[name] for name in by} if by else columns


def prepare_target(
    config: ExposureConfig,
    trained: TargetRecord,
    dataset: ImageDataset,
    report_progress: ReportProgress | None = None,
) -> ExposedTarget:
    """Load the target, train its shadow models or load them from the store, and attack it with LiRA.

    Args:
        config: The configuration.
        trained: The model record.
        dataset: The dataset of the training.
        report_progress: Called during long work.

    Raises:
        SecurityNetError: See `measure_exposure`.
    """
    splits = trained_splits(trained, dataset)
    if not roc.resolves(len(splits.non_members), config.fpr, config.level):
        raise ConfigurationError(
            f"{len(splits.non_members):,} non-members do not resolve a false-positive rate of {config.fpr:g}; "
            f"{rates.fewest(config.fpr, config.level):,} are needed.",
            hint="Raise --fpr.",
        )
    reference = config.architecture or read_architecture(trained)
    target = load_target(
        reference if ":" in reference else f"arch:{reference}",
        weights=config.weights,
        dataset=dataset,
        device=config.device,
    )
    cache = config.cache or cache_folder()
    data = TrialData(dataset, splits, trained, None, None, defense_of(trained))
    signals = collect(target, dataset, data.judged, cache=cache)
    shadows = shadow_outputs(
        target,
        dataset,
        splits,
        signals.indices,
        ShadowPlan(count=config.shadows),
        reduce=scaled_confidence,
        trained=trained,
        defense=data.defense,
        cache=cache,
        seed=config.seed,
        device=config.device,
        progress=None if report_progress is None else lambda done, total: report_progress("epochs", done, total),
    )
    observed = scaled_confidence(signals.logits, signals.labels)
    scores = _lira.online(observed, shadows.outputs[:, 0].astype(np.float64), shadows.included)
    return ExposedTarget(target, data, signals, np.isin(signals.indices, splits.members), shadows, scores, cache)


def _measure_target(exposed: ExposedTarget, config: ExposureConfig) -> Iterator[Measurement]:
    """LiRA's AUC and TPR on the target, and the predictor of its TPR from the target's losses alone."""
    member, level = exposed.is_member, config.level
    split = exposed.scores[member], exposed.scores[~member]
    yield roc.auc(*split, level=level, name="lira.auc")
    yield roc.tpr_at_fpr(*split, config.fpr, level=level, name=f"lira.tpr@fpr={config.fpr:g}")
    scores = log_confidence(exposed.signals.logits, exposed.signals.labels)
    measured = vulnerability.tnr_at_fnr(scores[member], scores[~member], config.fpr, level=level)
    yield measured.model_copy(update={"name": f"loss.{measured.name}"})


def _describe_records(
    exposed: ExposedTarget, found: vulnerability.Vulnerability, traces: LossTraces | None, level: float
) -> Iterator[RecordExposure]:
    """The exposure of each member, in the order of the records."""
    dataset, indices = exposed.data.dataset, exposed.signals.indices
    others = np.sort(exposed.scores[~exposed.is_member])
    shares = 1 - np.searchsorted(others, exposed.scores, side="left") / len(others)
    low, high = found.rate_limits(level)
    spread: dict[int, float] = {}
    if traces is not None and len(traces.losses) > 1:
        values = vulnerability.loss_trace_iqr(traces.losses)
        spread = dict(zip(traces.records.tolist(), values.tolist(), strict=True))
    for at in np.flatnonzero(exposed.is_member).tolist():
        record = int(indices[at])
        yield RecordExposure(
            record=record,
            name=dataset.get_record_name(record),
            label=dataset.class_names[int(dataset.labels[record])],
            member_of=int(found.member_of[at]),
            identified=int(found.identified[at]),
            non_member_of=int(found.non_member_of[at]),
            accused=int(found.accused[at]),
            among_top=int(found.among_top[at]),
            low=float(low[at]),
            high=float(high[at]),
            p_value=float(found.p_values[at]),
            share=float(shares[at]),
            loss_trace_iqr=spread.get(record),
        )
