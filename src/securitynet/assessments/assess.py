"""Runs an assessment: all applicable attacks and detectors on one target, each as a trial that is stored at its end."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from securitynet.assessments.assessed_target import AssessedTarget, make_trial_data
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.audit import audit_model
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.controls import measure_controls
from securitynet.assessments.finished_trials import FinishedTrials
from securitynet.assessments.run_trial import MetricOptions, ReportProgress, name_phase, reuse, run_trial, skip
from securitynet.assessments.trial_plan import list_absent_families, list_left_out, plan
from securitynet.assessments.what_helps import try_defenses
from securitynet.errors import SecurityNetError
from securitynet.files import find_cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.metrics.joint_verdict import measure_joint_verdict
from securitynet.models.loading.examination import describe_doubts, review_accuracy
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.records import Direction, Measurement
from securitynet.results.audit import PrivacyAudit
from securitynet.results.document import NotAssessed
from securitynet.results.store import TrialStore


def run_assessment(
    config: AssessConfig, assessed: AssessedTarget, store: TrialStore, report_progress: ReportProgress | None = None
) -> Assessment:
    """Query the target once, then run every requested attack and detector that applies.

    A finished trial in ``store``, or in the cache, is reused, unless ``config.rerun`` is set or another version of this
    package made it. A trial that fails is recorded as failed and does not affect the others.

    Args:
        config: The configuration.
        assessed: The target with its data.
        store: Trial files.
        report_progress: Called with (what, done, total).

    Raises:
        SecurityNetError: If the target gives no outputs for these images, so that nothing can be assessed.
    """
    planned = plan(config, assessed)
    cache = config.cache or find_cache_folder()
    data = make_trial_data(assessed)
    started = time.perf_counter()
    signals = collect_signals(
        assessed.target, data.dataset, data.judged, cache=cache, progress=name_phase(report_progress, "querying")
    )
    review(assessed, signals, data)
    queried = time.perf_counter()
    controls = measure_controls(assessed.dataset, assessed.splits, level=config.level, cache=cache)
    measures = MetricOptions(config.level, config.fprs, config.seed, controls)
    accuracies = measure_accuracies(signals, data, config.level, controls.left_out)
    assessment = Assessment(config, assessed, [*accuracies, *controls.measurements], signals, controls=controls)
    assessment.seconds["signals"] = queried - started
    assessment.seconds["controls"] = time.perf_counter() - queried
    finished = FinishedTrials(cache, assessed.target)
    for number, task in enumerate(planned):
        if report_progress:
            report_progress("trials", number, len(planned))
        if task.obstacle is not None:
            assessment.trials.append(skip(task, store))
            assessment.not_assessed.append(NotAssessed(what=task.name, why=task.obstacle))
            continue
        trial, marks = None, describe_doubts(assessed.target.checks)
        if not config.rerun:
            trial = reuse(task, store, measures, marks=marks)
            if trial is None and finished.fetch(task, store):
                trial = reuse(task, store, measures, marks=marks)
        if trial is None:
            running = name_phase(report_progress, task.name)
            context = Context(seed=config.seed, cache=cache, device=config.device, progress=running)
            trial = run_trial(task, assessed.target, data, context, store, measures)
            finished.keep(task, trial, store)
        assessment.trials.append(trial)
        if trial.result.status == "failed":
            assessment.not_assessed.append(NotAssessed(what=task.name, why=f"it failed: {trial.result.reason}"))
        elif trial.result.status == "skipped":
            assessment.not_assessed.append(NotAssessed(what=task.name, why=trial.result.reason or "it was skipped"))
    joint = measure_joint_verdict(assessment.all_measurements(), assessed.dataset.class_names, config.level)
    if joint is not None:
        assessment.measurements.append(joint)
    if report_progress:
        report_progress("trials", len(planned), len(planned))
    assessment.not_assessed += [*list_left_out(config), *list_absent_families(config)]
    if config.try_defenses:
        assessment.remedies = try_defenses(assessment, report_progress)
    assessment.audit = audit_if_possible(config, assessment)
    assessment.seconds["total"] = time.perf_counter() - started
    return assessment


def audit_if_possible(config: AssessConfig, assessment: Assessment) -> PrivacyAudit | None:
    """Audit a target that was trained with canaries; None for others.

    An audit that fails is listed under ``not_assessed``.

    Args:
        config: The configuration.
        assessment: The assessment of the target.
    """
    assessed = assessment.assessed_target
    if assessed.trained is None or assessed.trained.canaries is None or config.weights is None:
        return None
    try:
        return audit_model(
            config.weights,
            assessed.trained,
            assessed.dataset,
            architecture=assessed.target.architecture,
            level=config.level,
            device=config.device,
        )
    except SecurityNetError as error:
        assessment.not_assessed.append(NotAssessed(what="audit", why=f"it failed: {error.message}"))
        return None


def review(assessed: AssessedTarget, signals: Signals, data: TrialData) -> None:
    """Check the accuracy of a target on all of its non-members, and replace its checks and notes.

    Args:
        assessed: The target with its data.
        signals: Its outputs.
        data: Data of the trials.
    """
    inside = ~np.isin(signals.indices, data.splits.members)
    trained = assessed.trained
    # The accuracy in the model record holds for the non-members of its own split only.
    same = trained is not None and trained.split.fingerprint == data.splits.fingerprint
    stated = trained.test_accuracy if trained is not None and same else None
    names = data.dataset.class_names
    lowest = np.asarray(signals.outputs[inside].argmin(axis=1), dtype=np.int64)
    predicted, labels = signals.predictions[inside], signals.labels[inside]
    review_accuracy(assessed.target, predicted, labels, names, stated, lowest=lowest)


def measure_accuracies(
    signals: Signals, data: TrialData, level: float, left_out: NDArray[np.int64] | None = None
) -> list[Measurement]:
    """Measure the accuracy on members and on non-members, and their difference, the overfitting level.

    Args:
        signals: Outputs of the target for all members and non-members.
        data: Data of the trials.
        level: Confidence level of the intervals.
        left_out: Records that are not evaluated, unless a group has no others.
    """
    is_member = np.isin(signals.indices, data.splits.members)
    rest = np.ones(len(signals), dtype=bool) if left_out is None else ~np.isin(signals.indices, left_out)
    if not (rest & is_member).any() or not (rest & ~is_member).any():
        rest = np.ones(len(signals), dtype=bool)
    inside, outside = is_member & rest, ~is_member & rest
    train = int(signals.correct[inside].sum()), int(inside.sum())
    test = int(signals.correct[outside].sum()), int(outside.sum())
    return [
        rates.rate("target.train_accuracy", *train, direction=Direction.HIGHER, level=level),
        rates.rate("target.test_accuracy", *test, direction=Direction.HIGHER, level=level),
        rates.measure_difference("target.overfitting", train, test, direction=Direction.LOWER, level=level),
    ]
