"""Exposure of single records: leave-one-out LiRA over the stored shadow models, loss traces, groups, and removal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import securitynet.datasets
from securitynet.assessments.exposed_target import ExposedTarget, ReportProgress, prepare_target
from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.assessments.exposure_result import RankingReliability, RecordExposure, RecordsExposure
from securitynet.assessments.exposure_sentences import describe_exposure
from securitynet.assessments.removal import choose_removed, try_removal
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._leave_one_out import score_each_model
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.errors import ConfigurationError, ModelError
from securitynet.metrics import groups, roc, vulnerability
from securitynet.models.store.record_files import read_target_record
from securitynet.models.training.loss_traces import LossTraces, read_loss_traces
from securitynet.records import Measurement

SHOWN = 12
"""Records that the result names; the table has all members."""


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
    columns = choose_group_columns(dataset, config.by)
    removed = choose_removed(config, trained, dataset)
    exposed = prepare_target(config, trained, dataset, report_progress)
    indices, member = exposed.signals.indices, exposed.is_member
    included = exposed.shadows.included
    signals = exposed.shadow_signals

    def attack_each(memberships: NDArray[np.bool_]) -> NDArray[np.float64]:
        return score_each_model(signals, memberships, balanced=True, seed=config.seed)

    measured = vulnerability.measure_vulnerability(
        attack_each(included), included, fpr=config.fpr, share=config.top_share
    )
    reliability = vulnerability.measure_reliability(attack_each, included, config.top_share, seed=config.seed)
    traces = read_loss_traces(config.weights, trained.key)
    records = list(_describe_records(exposed, measured, traces, config.level))
    records.sort(key=lambda r: (r.accused / max(r.non_member_of, 1) - r.identified / max(r.member_of, 1), r.share))
    chosen = {name: (values[indices], names) for name, (values, names) in columns.items()}
    compared = groups.compare_exposed_groups(
        exposed.scores, member, exposed.find_threshold(config.fpr), chosen, level=config.level
    )
    removal = None if removed is None else try_removal(config, removed, trained, exposed, report_progress)
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
            chance=reliability.chance,
            chance_high=reliability.chance_high,
            pairs=reliability.pairs,
        ),
        significant=int((measured.p_values <= 1 - config.level).sum()),
        most_exposed=tuple(records[:SHOWN]),
        groups=tuple(compared),
        removal=removal,
        notes=exposed.shadows.fidelity,
    )
    return result.model_copy(update={"sentences": tuple(describe_exposure(result))}), records


def choose_group_columns(dataset: ImageDataset, by: tuple[str, ...]) -> dict[str, groups.Column]:
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


def _measure_target(exposed: ExposedTarget, config: ExposureConfig) -> Iterator[Measurement]:
    """LiRA's AUC and TPR on the target, and the predictor of its TPR from the target's losses alone."""
    member, level = exposed.is_member, config.level
    split = exposed.scores[member], exposed.scores[~member]
    yield roc.measure_auc(*split, level=level, name="lira.auc")
    yield roc.measure_tpr_at_fpr(*split, config.fpr, level=level, name=f"lira.tpr@fpr={config.fpr:g}")
    scores = log_confidence(exposed.signals.logits, exposed.signals.labels)
    measured = vulnerability.compute_tnr_at_fnr(scores[member], scores[~member], config.fpr, level=level)
    yield measured.model_copy(update={"name": f"loss.{measured.name}"})


def _describe_records(
    exposed: ExposedTarget, measured: vulnerability.Vulnerability, traces: LossTraces | None, level: float
) -> Iterator[RecordExposure]:
    """The exposure of each member, in the order of the records."""
    dataset, indices = exposed.data.dataset, exposed.signals.indices
    shares = roc.count_share(exposed.scores[~exposed.is_member], exposed.scores)
    low, high = measured.rate_limits(level)
    spread: dict[int, float] = {}
    if traces is not None and len(traces.losses) > 1:
        values = vulnerability.compute_loss_trace_iqr(traces.losses)
        spread = dict(zip(traces.records.tolist(), values.tolist(), strict=True))
    for at in np.flatnonzero(exposed.is_member).tolist():
        record = int(indices[at])
        yield RecordExposure(
            record=record,
            name=dataset.get_record_name(record),
            label=dataset.class_names[int(dataset.labels[record])],
            member_of=int(measured.member_of[at]),
            identified=int(measured.identified[at]),
            non_member_of=int(measured.non_member_of[at]),
            accused=int(measured.accused[at]),
            among_top=int(measured.among_top[at]),
            low=float(low[at]),
            high=float(high[at]),
            p_value=float(measured.p_values[at]),
            share=float(shares[at]),
            loss_trace_iqr=spread.get(record),
        )
