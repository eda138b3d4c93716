"""Estimates the cost of running a study with a short calibration on this machine; it writes no results of the study."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import securitynet.datasets
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.run_trial import ReportProgress
from securitynet.datasets.options import load_options
from securitynet.models.training.config import TrainConfig
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.plan import StudyTrial
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution.executors.base import ExecutorConfig, TaskCompletion, WorkerDeath
from securitynet.studies.execution.executors.local import LocalExecutor, plan_placements, read_memory_peak
from securitynet.studies.execution.lock import Note
from securitynet.studies.execution.preview import StudyPreview
from securitynet.studies.execution.status import describe_duration
from securitynet.studies.execution.task_records import TaskOutcome, WorkerConfig, WorkerTask

RECORDS = 200
"""Number of records of each part in the calibration."""

TRY_SECONDS = 60.0
"""Time limit of a trial of the calibration in seconds; longer trials give lower bounds."""


@dataclass
class CostEstimate:
    """The estimated cost of a run.

    Attributes:
        seconds: Wall-clock seconds with ``workers`` workers.
        workers: Number of workers.
        memory: Bytes of the largest worker, on the few records of the calibration.
        disk: Bytes of results.
        queries: Number of images sent to targets, not counting caches.
        methods: Method -> seconds of a trial.
        bounds: Methods that exceeded the time limit, whose seconds are lower bounds.
        failed: Method -> why it could not be tried.
        on: Label of the target of the calibration.
    """

    seconds: float = 0.0
    workers: int = 1
    memory: int = 0
    disk: int = 0
    queries: int = 0
    methods: dict[str, float] = field(default_factory=dict)
    bounds: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    on: str = "nothing"

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Return lines of text for people."""
        least = "at least " if self.bounds else "about "
        yield f"Estimated from {RECORDS} records a part on {self.on}:"
        yield f"  time: {least}{describe_duration(self.seconds)} with {self.workers} workers"
        yield f"  memory: {self.memory / 2**30:.1f} GiB per worker, more for larger data"
        yield f"  disk: {self.disk / 2**20:,.0f} MiB of results"
        yield f"  queries: {self.queries:,} images"
        for name in self.bounds:
            yield f"  {name} took over {TRY_SECONDS:.0f} s even on these, and may take much longer"
        for name, why in self.failed.items():
            yield f"  {name} could not be tried: {why}"


def estimate_cost(
    preview: StudyPreview,
    *,
    workers: int | None = None,
    report_progress: ReportProgress | None = None,
    note: Note = print,
) -> CostEstimate:
    """Try each method once on a few records of one target, and extrapolate.

    Time and queries are assumed to be proportional to the number of records. Training is tried for one epoch.

    Args:
        preview: What would be run.
        workers: Number of workers; by default, as many as `study run` would start.
        report_progress: Called after each trial.
        note: Called with messages about what could not be tried.
    """
    folder = Path(tempfile.mkdtemp(prefix="securitynet-calibration-"))
    try:
        return _Calibration(preview, folder, workers, report_progress, note).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Calibration:
    def __init__(
        self,
        preview: StudyPreview,
        folder: Path,
        workers: int | None,
        report_progress: ReportProgress | None,
        note: Note,
    ) -> None:
        self.preview, self.folder, self.report_progress, self.note = preview, folder, report_progress, note
        self.plan = preview.plan
        settings, measures = self.plan.study.run, self.plan.study.measures
        one = settings.model_copy(update={"workers": 1, "pin": False})
        worker = WorkerConfig(
            root=str(folder / "results"), cache=folder / "cache", level=measures.level, fprs=measures.fprs
        )
        self.executor = LocalExecutor(ExecutorConfig(worker, folder, one))
        self.workers = workers or len(plan_placements(settings))
        self.memory = 0

    def run(self) -> CostEstimate:
        candidates = [target for target in self.plan.targets if target.obstacle is None]
        cost = CostEstimate(workers=self.workers)
        if candidates:
            cost.on = candidates[0].label
        try:
            for target in candidates:
                if self._try_target(target, cost):
                    break
        finally:
            self.executor.close()
        cost.memory = self.memory
        return cost

    def _try_target(self, target: TargetPlan, cost: CostEstimate) -> bool:
        """Try everything on one target; return False if it cannot be opened."""
        small = _shrink_target(target)
        training = 0.0
        if small.train is not None:
            trained = self._complete(WorkerTask(kind="train", target=small))
            if trained.status != "ok":
                self.note(f"{target.label} can't be trained for the calibration: {trained.reason}")
                return False
            training = trained.seconds
        opened = self._complete(WorkerTask(kind="open", target=small))
        if opened.record is None:
            self.note(f"{target.label} can't be opened for the calibration: {opened.reason}")
            return False
        cost.on = target.label
        tried = opened.record.facts["members"] + opened.record.facts["non_members"]
        scale = self._compute_scale(target, tried)
        seconds = self._try_methods(small, opened.record, cost)
        cost.methods = {name: sum(values) / len(values) * scale for name, values in seconds.items()}
        usual = sum(cost.methods.values()) / len(cost.methods) if cost.methods else 0.0
        total = sum(number * cost.methods.get(name, usual) for name, number in self.preview.run.items())
        total += self.preview.unopened * opened.seconds * scale
        if small.train is not None:
            total += sum(training * scale * _count_epochs(planned) for planned in self.preview.train)
        cost.seconds = total / self.workers
        self._measure_results(cost, scale)
        return True

    def _try_methods(self, small: TargetPlan, record: StudyTargetRecord, cost: CostEstimate) -> dict[str, list[float]]:
        """Return the seconds of the trials of each method, one for each threat model."""
        trials: dict[tuple[str, str], StudyTrial] = {}
        for trial in self.plan.trials(small, self.plan.capabilities(small, record)):
            if trial.obstacle is None and trial.plan.name in self.preview.run:
                trials.setdefault((trial.plan.name, str(trial.spec.threat_model)), trial)
        seconds: dict[str, list[float]] = {}
        for number, ((name, _), trial) in enumerate(trials.items()):
            if self.report_progress:
                self.report_progress("calibrating", number, len(trials))
            outcome = self._run_task(WorkerTask(kind="run_trial", target=small, trials=(trial.request(),)), TRY_SECONDS)
            if outcome is None:
                if name not in cost.bounds:
                    cost.bounds.append(name)
                seconds.setdefault(name, []).append(TRY_SECONDS)
            elif outcome.trial_status == "ok":
                seconds.setdefault(name, []).append(outcome.seconds)
            else:
                cost.failed[name] = outcome.reason or ""
        return seconds

    def _measure_results(self, cost: CostEstimate, scale: float) -> None:
        """Measure the size of the results and the number of queries of the trials."""
        results = list(TrialStore(self.folder / "results"))
        queries = {r.spec.method: r.queries.total * scale for r in results if r.status == "ok"}
        size = sum(path.stat().st_size for path in (self.folder / "results").rglob("*.*") if path.is_file())
        runs = self.preview.run
        cost.disk = round(size / max(len(results), 1) * scale * sum(runs.values()))
        cost.queries = round(sum(number * queries.get(name, 0.0) for name, number in runs.items()))

    def _compute_scale(self, target: TargetPlan, tried: int) -> float:
        """Return the ratio of the study's number of records to the calibration's."""
        config = AssessConfig.model_validate(target.options)
        assert config.dataset is not None  # targets without a dataset are not tried
        dataset = securitynet.datasets.load(config.dataset, **load_options(config), cache=self.preview.cache)
        parts = 2 if self.plan.capabilities(target, None).split.name == "four-way" else 1
        return max(1.0, len(dataset) / parts / max(tried, 1))

    def _complete(self, task: WorkerTask) -> TaskOutcome:
        outcome = self._run_task(task)
        assert outcome is not None  # there was no limit
        return outcome

    def _run_task(self, task: WorkerTask, limit: float | None = None) -> TaskOutcome | None:
        """Run a task and return its outcome; None if it took longer than ``limit`` seconds."""
        started = time.monotonic()
        self.executor.submit(0, task)
        while True:
            events = self.executor.wait(0.1)
            self.memory = max([self.memory, *(read_memory_peak(pid) for pid in self.executor.list_processes())])
            for event in events:
                if isinstance(event, TaskCompletion):
                    return event.outcome
                if isinstance(event, WorkerDeath):
                    return TaskOutcome(status="failed", reason=event.why)
            if limit is not None and time.monotonic() - started > limit:
                self.executor.kill(0)
                return None


def _count_epochs(target: TargetPlan) -> int:
    return TrainConfig.model_validate(target.train).epochs


def _shrink_target(target: TargetPlan) -> TargetPlan:
    """Return the target on few records and trained for one epoch."""
    limit = min(RECORDS, target.options.get("limit") or RECORDS)
    train = None if target.train is None else {**target.train, "epochs": 1, "limit": limit, "patience": 0}
    options = {**target.options, "limit": limit}
    key = f"calibration-{target.key}"
    # The stated accuracy holds for all records, not for a few.
    return target.model_copy(
        update={"options": options, "train": train, "key": key, "accuracy": None, "checksum": None}
    )
