"""The tasks of a worker: train a target, open it, do shared work, run a trial. All executors run these.

A target stays open between tasks, so it is loaded once for all its trials that a worker runs.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import securitynet.datasets
from securitynet.assessments.assess import measure_accuracies, review
from securitynet.assessments.assessed_target import AssessedTarget, make_trial_data, prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.controls import MembershipControls, measure_controls
from securitynet.assessments.method_settings import make_method
from securitynet.assessments.prepare_training import prepare_training
from securitynet.assessments.run_trial import (
    MetricOptions,
    ReportProgress,
    is_full_disk,
    name_phase,
    reuse,
    run_trial,
)
from securitynet.assessments.trial_plan import PlannedTrial, describe_capabilities, make_specification
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.locks import hold_file_lock
from securitynet.datasets.options import load_options
from securitynet.errors import ConfigurationError, ModelError, SecurityNetError
from securitynet.files import write_atomically
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.loading.examination import describe_doubts
from securitynet.models.sources.catalog import fetch_weights
from securitynet.models.store.record_files import locate_model_record
from securitynet.models.store.train_target import train_model
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import estimate_target_memory
from securitynet.models.training.config import TrainConfig
from securitynet.results.root import Root, open_root
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetStore
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.definition.trial_request import TrialRequest
from securitynet.studies.execution.opened_target import check_claims, describe_opened_target, list_lasting_facts
from securitynet.studies.execution.task_records import (
    TaskKind,
    TaskOutcome,
    TrialStatus,
    WorkerConfig,
    WorkerTask,
)
from securitynet.studies.execution.term import FencedStore

BEGAN = "began"
"""Progress message for the moment when the target is open and the trial begins, at which its time limit starts."""

_COLLECT_ABOVE = 1 << 28
"""Bytes of closed targets after which reference cycles are looked for, which takes a tenth of a second."""

_DATASETS = 2
"""Number of datasets that stay loaded, because consecutive targets often share one."""


@dataclass(eq=False)
class _OpenTarget:
    key: str
    assessed: AssessedTarget
    data: TrialData
    dependencies: dict[str, SharedWork] = field(default_factory=dict)
    controls: MembershipControls | None = None
    reviewed: bool = False


class TaskRunner:
    """Runs a worker's tasks, one at a time.

    Args:
        config: Configuration of the worker.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config, self.cache, self.device = config, config.cache, config.placement.device
        self.root = open_root(config.root)
        self.store = TrialStore(self.root) if config.term is None else FencedStore(self.root, config.term)
        self.records = StudyTargetStore(self.root)
        self._open: dict[str, _OpenTarget] = {}
        self._closed = _COLLECT_ABOVE
        self._datasets: dict[str, ImageDataset] = {}

    def run(self, task: WorkerTask, report_progress: ReportProgress | None = None) -> TaskOutcome:
        """Run a task; errors are returned as its outcome, so that the worker continues."""
        started = time.perf_counter()
        if task.kind != "train":
            self._close(keep={task.target.key, *(target.key for target in task.others), *task.keep})
        actions: dict[TaskKind, Callable[[WorkerTask, ReportProgress | None], TaskOutcome]] = {
            "train": self._train,
            "open": self._open_target,
            "list_dependencies": self._list_dependencies,
            "run_dependency": self._run_dependency,
            "run_trial": self._run_trial,
            "run_together": self._run_together,
            "recompute_metrics": self._recompute_metrics,
        }
        try:
            outcome = actions[task.kind](task, report_progress)
        except Exception as error:
            storage = is_full_disk(error) or isinstance(error, PermissionError)
            outcome = TaskOutcome(
                status="storage" if storage else "failed",
                reason=describe_task_error(error),
                traceback=traceback.format_exc(),
            )
        return outcome.model_copy(update={"seconds": time.perf_counter() - started})

    def _train(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        self._train_weights(TrainConfig.model_validate(task.target.train), report_progress)
        return TaskOutcome()

    def _train_weights(self, recipe: TrainConfig, report_progress: ReportProgress | None) -> Path:
        dataset = self._load_dataset(recipe)
        return train_weights(recipe, self.root, self.cache, self.device, dataset, report_progress)

    def _get_open(self, target: TargetPlan, report_progress: ReportProgress | None = None) -> _OpenTarget:
        """Return the target, and open it if it is not open."""
        if target.key in self._open:
            return self._open[target.key]
        options = dict(target.options)
        if target.train is not None:
            recipe = TrainConfig.model_validate(target.train)
            options["weights"] = str(self._train_weights(recipe, report_progress))
        if target.weights_url is not None:
            options["weights"] = str(fetch_weights(target.weights_url, target.catalog or "", target.enforced))
        config = AssessConfig.model_validate({**options, "cache": self.cache, "device": self.device})
        dataset = self._load_dataset(config) if config.dataset is not None else None
        phase = name_phase(report_progress, "loading")
        assessed = prepare(config, phase, dataset=dataset, checksum=target.enforced)
        self._open[target.key] = _OpenTarget(target.key, assessed, make_trial_data(assessed))
        return self._open[target.key]

    def _close(self, keep: Collection[str]) -> None:
        """Close the open targets but these."""
        for key in [key for key in self._open if key not in keep]:
            self._closed += estimate_target_memory(self._open.pop(key).assessed.target) or _COLLECT_ABOVE
        if self._closed >= _COLLECT_ABOVE:
            gc.collect()  # a target may be large and part of a reference cycle
            self._closed = 0

    def _review(self, opened: _OpenTarget, report_progress: ReportProgress | None) -> Signals:
        """Check an open target's accuracy on all records, not on a sample, and return its outputs.

        Each worker that runs its trials does so: what is doubtful about a target is recorded with each of them.
        """
        target, data = opened.assessed.target, opened.data
        querying = name_phase(report_progress, "querying")
        signals = collect_signals(target, data.dataset, data.judged, cache=self.cache, progress=querying)
        if not opened.reviewed:
            review(opened.assessed, signals, data)
            opened.reviewed = True
        return signals

    def _load_dataset(self, config: AssessConfig | TrainConfig) -> ImageDataset:
        options = load_options(config)
        key = str([config.dataset, options])
        if key not in self._datasets:
            while len(self._datasets) >= _DATASETS:
                self._datasets.pop(next(iter(self._datasets)))
            assert config.dataset is not None
            self._datasets[key] = securitynet.datasets.load(config.dataset, **options, cache=self.cache)
        self._datasets[key] = self._datasets.pop(key)  # the most recently used dataset stays longest
        return self._datasets[key]

    def _open_target(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        started = time.perf_counter()
        opened = self._get_open(task.target, report_progress)
        loaded = time.perf_counter()
        assessed, data = opened.assessed, opened.data
        signals = self._review(opened, report_progress)
        left_out = self._control_membership(opened).left_out
        measurements = measure_accuracies(signals, data, self.config.level, left_out)
        checks = check_claims(task.target, measurements, task.accuracy_tolerance)
        checks += [check for check in assessed.target.checks if check.what not in {known.what for known in checks}]
        wrong = [check for check in checks if not check.agrees]
        if wrong and task.on_mismatch == "fail":
            raise ModelError(
                f"{assessed.target.reference}: {describe_doubts(wrong)[0]}",
                hint="Check dataset and normalize, or set on_mismatch = 'note'.",
            )
        seconds = {"load": round(loaded - started, 4), "signals": round(time.perf_counter() - loaded, 4)}
        record = describe_opened_target(task.target, assessed, signals, checks, measurements, seconds)
        earlier = self.records.load(record.key)
        if earlier is None or list_lasting_facts(earlier) != list_lasting_facts(record):
            self.records.save(record)
        return TaskOutcome(record=record, memory=estimate_target_memory(assessed.target))

    def _plan_trial(self, opened: _OpenTarget, trial: TrialRequest) -> PlannedTrial:
        method = make_method(trial.kind, trial.method, trial.settings)
        spec = make_specification(
            trial.method, method, trial.threat_model, describe_capabilities(opened.assessed), trial.seed
        )
        if spec.id != trial.id:
            raise ConfigurationError(
                f"{opened.assessed.target.reference} has changed since the study opened it.",
                hint="Its weights or data have been replaced; run the study again.",
            )
        return PlannedTrial(trial.name, method, spec)

    def _make_context(self, trial: TrialRequest, report_progress: ReportProgress | None) -> Context:
        progress = name_phase(report_progress, trial.name)
        return Context(seed=trial.seed, cache=self.cache, device=self.device, progress=progress)

    def _list_dependencies(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        opened = self._get_open(task.target, report_progress)
        keys = self._find_dependencies(opened, task.trials)
        return TaskOutcome(
            dependencies=keys, descriptions={key: work.what for key, work in opened.dependencies.items()}
        )

    def _find_dependencies(self, opened: _OpenTarget, trials: Sequence[TrialRequest]) -> dict[str, list[str]]:
        """Return the keys of the shared work of each trial, and store the work itself with the open target."""
        keys: dict[str, list[str]] = {}
        for trial in trials:
            planned = self._plan_trial(opened, trial)
            target = opened.assessed.target.under(planned.spec.threat_model.access)
            context = self._make_context(trial, None)
            context.threat_model = planned.spec.threat_model
            try:
                work = planned.method.shared_work(target, opened.data, context)
            except SecurityNetError:
                continue  # the trial will raise the same error and record it
            opened.dependencies.update({piece.key: piece for piece in work})
            keys[trial.id] = [piece.key for piece in work]
        return keys

    def _run_dependency(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        opened = self._get_open(task.target, report_progress)
        assert task.dependency is not None
        if task.dependency not in opened.dependencies:  # another worker listed the dependencies
            self._find_dependencies(opened, task.trials)
        work = opened.dependencies[task.dependency]
        work.run(name_phase(report_progress, work.what))
        return TaskOutcome()

    def _run_trial(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        opened = self._get_open(task.target, report_progress)
        planned = self._plan_trial(opened, task.trial)
        if not opened.reviewed:
            self._review(opened, report_progress)
        context = self._make_context(task.trial, report_progress)
        if report_progress:
            report_progress(BEGAN, 0, 0)
        options = self._metric_options(task.trial, opened)
        trial = run_trial(planned, opened.assessed.target, opened.data, context, self.store, options)
        return TaskOutcome(trial_status=trial.result.status, reason=trial.result.reason)

    def _run_together(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        """Run one trial of each of several targets together.

        Trials that this fails for are left to be run alone, which then records why.
        """
        members: list[tuple[TrialRequest, PlannedTrial, _OpenTarget, Context]] = []
        for target, trial in zip((task.target, *task.others), task.trials, strict=True):
            try:
                opened = self._get_open(target, report_progress)
                planned = self._plan_trial(opened, trial)
                if not opened.reviewed:
                    self._review(opened, report_progress)
                members.append((trial, planned, opened, self._make_context(trial, report_progress)))
            except Exception as error:
                if is_full_disk(error):
                    raise
        if report_progress:
            report_progress(BEGAN, 0, 0)
        started = time.perf_counter()
        try:
            cases = [
                (view, opened.data, context)
                for _, planned, opened, own in members
                for view, context in [planned.method.admitted(opened.assessed.target, own, planned.spec.threat_model)]
            ]
            outputs = members[0][1].method.run_together(cases) if members else []
        except (Exception, SystemExit) as error:
            if is_full_disk(error):
                raise
            return TaskOutcome()
        seconds = (time.perf_counter() - started) / max(1, len(members))
        ended: dict[str, tuple[TrialStatus, str | None]] = {}
        for (trial, planned, opened, context), output in zip(members, outputs, strict=True):
            options = self._metric_options(trial, opened)
            computed = output, seconds
            done = run_trial(planned, opened.assessed.target, opened.data, context, self.store, options, computed)
            ended[trial.id] = done.result.status, done.result.reason
        return TaskOutcome(together=ended)

    def _recompute_metrics(self, task: WorkerTask, report_progress: ReportProgress | None) -> TaskOutcome:
        """Recompute the metrics of a finished trial from its stored output, with other levels or rates."""
        trial = task.trial
        earlier = self.store.load(trial.id)
        if earlier is not None:
            method = make_method(trial.kind, trial.method, trial.settings)
            planned = PlannedTrial(trial.name, method, earlier.spec)
            options = self._metric_options(trial, self._get_open(task.target, report_progress))
            if reuse(planned, self.store, options, any_version=True) is not None:
                return TaskOutcome(trial_status="ok")
        return self._run_trial(task, report_progress)

    def _metric_options(self, trial: TrialRequest, opened: _OpenTarget) -> MetricOptions:
        return MetricOptions(self.config.level, self.config.fprs, trial.seed, self._control_membership(opened))

    def _control_membership(self, opened: _OpenTarget) -> MembershipControls:
        """The controls of an open target; targets of one dataset and split share them in the cache."""
        if opened.controls is None:
            assessed = opened.assessed
            opened.controls = measure_controls(
                assessed.dataset, assessed.splits, level=self.config.level, cache=self.cache
            )
        return opened.controls


def train_weights(
    config: TrainConfig,
    root: Root,
    cache: Path,
    device: str,
    dataset: ImageDataset,
    report_progress: ReportProgress | None = None,
) -> Path:
    """Return the path of the weights of a recipe: from the cache, else from the results, else trained now.

    Args:
        config: The recipe.
        root: Root of the results; an object store also holds the weights for other machines.
        cache: Folder for what can be recomputed.
        device: Device to train on.
        dataset: The dataset that it names.
        report_progress: Called after each epoch.
    """
    config, defense, backdoor = prepare_training(config)
    path = locate_recipe_weights(config, cache)
    shared = f"models/{path.name}"
    with hold_file_lock(path.with_suffix(".lock")):
        if root.folder is None and not locate_model_record(path).exists() and root.exists(shared):
            for part in (path, locate_model_record(path)):  # the record is last and makes the model complete
                with write_atomically(part) as stream:
                    stream.write(root.read(f"models/{part.name}"))
        train_model(
            config.model_copy(update={"out": path, "device": device}),
            defense=defense,
            backdoor=backdoor,
            dataset=dataset,
            progress=_report_epochs(report_progress),
        )
        if root.folder is None and not root.exists(shared):
            # Other machines that open this target then need not train it.
            for part in (locate_model_record(path), path):
                root.write(f"models/{part.name}", part.read_bytes())
    return path


def locate_recipe_weights(config: TrainConfig, cache: Path) -> Path:
    """Return the path of the weights of a recipe, whose name is derived from all its settings."""
    return cache / "models" / config.model_copy(update={"out": None}).weights_file.name


def describe_task_error(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, SecurityNetError):
        return str(error)
    if is_full_disk(error) or isinstance(error, PermissionError):
        assert isinstance(error, OSError)
        return f"{error.strerror or error}: {error.filename or 'the folder of results or cache'}"
    return f"{type(error).__name__}: {error}"


def _report_epochs(report_progress: ReportProgress | None) -> Any:
    return None if report_progress is None else lambda done, total, _history: report_progress("training", done, total)
