"""An assessment: all applicable attacks and detectors on one target, each a trial that is kept once it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from securitynet.assessments.assessed_target import Subject, trial_data
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.run_trial import Measures, Trial, reuse, run_trial, skip
from securitynet.assessments.trial_plan import absent_families, left_out, plan
from securitynet.assessments.what_helps import try_defenses
from securitynet.files import cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.models.targets.signals import Signals, collect
from securitynet.records import Direction, Measurement
from securitynet.results.document import NotAssessed, Remedies
from securitynet.results.store import TrialStore

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(eq=False)
class Assessment:
    """What was found about one target.

    Attributes:
        config: As given.
        subject: The target with its data.
        measurements: Of the target itself (accuracies); those of attacks are in ``trials``.
        trials: In the order they ran.
        not_assessed: What a reader may expect and will not find.
        signals: Outputs for all judged records.
        seconds: Wall-clock seconds by phase.
        remedies: What would help; None unless it was asked for.
    """

    config: AssessConfig
    subject: Subject
    measurements: list[Measurement]
    signals: Signals
    trials: list[Trial] = field(default_factory=list)
    not_assessed: list[NotAssessed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    remedies: Remedies | None = None

    def all_measurements(self) -> list[Measurement]:
        """The target's and all trials'."""
        return [*self.measurements, *(m for trial in self.trials for m in trial.result.measurements)]

    def __getitem__(self, name: str) -> Measurement:
        """A measurement by its dotted name; KeyError names what there is."""
        for measurement in self.all_measurements():
            if measurement.name == name:
                return measurement
        raise KeyError(f"{name!r}; there are: {', '.join(m.name for m in self.all_measurements())}")


def run(config: AssessConfig, subject: Subject, store: TrialStore, progress: Progress | None = None) -> Assessment:
    """Query the target once, then run every attack and detector that was asked for and applies.

    A finished trial in ``store`` is used again, unless ``config.rerun`` says otherwise or another version of this
    package made it. One that fails is recorded as failed, and the others go on.

    Raises:
        SecurityNetError: If the target can't answer for these images; nothing can be assessed then.
    """
    planned = plan(config, subject)
    cache = config.cache or cache_folder()
    data = trial_data(subject)
    measures = Measures(config.level, config.fprs, config.seed)
    started = time.perf_counter()
    signals = collect(subject.target, data.dataset, data.judged, cache=cache, progress=_named(progress, "querying"))
    assessment = Assessment(config, subject, accuracies(signals, data, config.level), signals)
    assessment.seconds["signals"] = time.perf_counter() - started
    for number, task in enumerate(planned):
        if progress:
            progress("trials", number, len(planned))
        if task.obstacle is not None:
            assessment.trials.append(skip(task, store))
            assessment.not_assessed.append(NotAssessed(what=task.name, why=task.obstacle))
            continue
        trial = None if config.rerun else reuse(task, store, measures)
        if trial is None:
            told = _named(progress, task.name)
            context = Context(seed=config.seed, cache=cache, device=config.device, progress=told)
            trial = run_trial(task, subject.target, data, context, store, measures)
        assessment.trials.append(trial)
        if trial.result.status == "failed":
            assessment.not_assessed.append(NotAssessed(what=task.name, why=f"it failed: {trial.result.reason}"))
        elif trial.result.status == "skipped":
            assessment.not_assessed.append(NotAssessed(what=task.name, why=trial.result.reason or "it was skipped"))
    if progress:
        progress("trials", len(planned), len(planned))
    assessment.not_assessed += [*left_out(config), *absent_families(config)]
    if config.try_defenses:
        assessment.remedies = try_defenses(assessment, progress)
    assessment.seconds["total"] = time.perf_counter() - started
    return assessment


def accuracies(signals: Signals, data: TrialData, level: float) -> list[Measurement]:
    """Accuracy on members and on non-members, and their difference, the overfitting level."""
    is_member = np.isin(signals.indices, data.splits.members)
    train = int(signals.correct[is_member].sum()), int(is_member.sum())
    test = int(signals.correct[~is_member].sum()), int((~is_member).sum())
    return [
        rates.rate("target.train_accuracy", *train, direction=Direction.HIGHER, level=level),
        rates.rate("target.test_accuracy", *test, direction=Direction.HIGHER, level=level),
        rates.difference("target.overfitting", train, test, direction=Direction.LOWER, level=level),
    ]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
