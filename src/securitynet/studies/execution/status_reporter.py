"""Reports the status of a run: to the caller, to ``status.json`` and to the index, each at its own interval."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from securitynet.files import write_json
from securitynet.models.training.config import TrainConfig
from securitynet.results.index import Index
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution import status as study_status
from securitynet.studies.execution.lock import Note
from securitynet.studies.execution.progress import StudyProgress
from securitynet.studies.execution.run_options import RunOptions, refresh_index
from securitynet.studies.execution.scheduler import Task
from securitynet.studies.execution.status import Status

SHOW_EVERY = 0.2
_WRITE_EVERY = 1.0
_INDEX_EVERY = 30.0


@dataclass
class RunningTask:
    """A running task and its progress.

    Attributes:
        task: The task.
        started: When the worker received it (monotonic seconds).
        trial_started: When the trial itself began, after its target was opened (monotonic seconds); None before, and
            for other tasks.
        what: Description of the current phase.
        done: Units of the phase that are done.
        total: Units of the phase in total; 0 if unknown.
    """

    task: Task
    started: float
    trial_started: float | None = None
    what: str = ""
    done: int = 0
    total: int = 0


@dataclass
class StatusReporter:
    """Updates and reports the status of a run.

    Args:
        name: Name of the study.
        progress: Progress of its trials.
        index: Index of its results.
        options: Options of the run.
        started: When the run began (monotonic seconds).
        on_status: Called with the status a few times a second.
        note: Called with messages for the user.
    """

    name: str
    progress: StudyProgress
    index: Index
    options: RunOptions
    started: float
    on_status: Callable[[Status], None] | None
    note: Note
    status: Status = field(default_factory=Status)

    def __post_init__(self) -> None:
        self._written = self._indexed = self._shown = 0.0
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._epoch_seconds: dict[str, float] = {}
        self._recipes: dict[str, tuple[str, int]] = {}
        self._earlier = {name: mean for name, (_, mean) in self.index.timings().items()}

    def add_seconds(self, name: str, seconds: float) -> None:
        """Record how long a trial of a method, or ``open``, took."""
        self._seconds[name].append(seconds)

    def add_training(self, target: TargetPlan, seconds: float) -> None:
        """Record how long the training of a target took.

        The slowest training of an architecture counts: others may have gone on from a checkpoint, or found their model.
        """
        architecture, epochs = self._describe_training(target)
        self._epoch_seconds[architecture] = max(self._epoch_seconds.get(architecture, 0.0), seconds / epochs)

    def report_failure(self, what: str, reason: str) -> None:
        """Report what failed, and why."""
        self.status.failures = [*self.status.failures[-9:], (what, reason)]
        self.note(f"{what} failed: {reason}")

    def report(
        self,
        state: str,
        running: Collection[RunningTask],
        unopened: int,
        trainings: Sequence[TargetPlan],
        *,
        force: bool = False,
    ) -> None:
        """Update the status, and report it where a report is due.

        Args:
            state: See `Status`.
            running: Running tasks.
            unopened: Number of targets still to be opened.
            trainings: Recipes that are still to be trained, or are being trained: for each, a target that needs it.
            force: Whether to report everywhere now.
        """
        now = time.monotonic()
        if not force and now - self._shown < SHOW_EVERY:
            return
        self._shown = now
        self._update(state, running, now)
        attacking, training = self._estimate_trials(unopened), self._estimate_trainings(trainings, running, now)
        if attacking is None or training is None:
            self.status.left = None
        else:
            self.status.left = (attacking + training) / max(self.status.workers, 1)
        if self.on_status:
            self.on_status(self.status)
        if force or now - self._written >= _WRITE_EVERY:
            self._written = now
            with suppress(OSError):  # a full disk stops the study when results are written, not here
                write_json(self.options.state / study_status.FILE, self.status.to_json())
        if now - self._indexed >= _INDEX_EVERY:
            self._indexed = now
            refresh_index(self.index, self.note)

    def _update(self, state: str, running: Iterable[RunningTask], now: float) -> None:
        status, counts = self.status, self.progress.count_all()
        status.name, status.state = self.name, state
        status.total, status.ok, status.failed, status.skipped = counts.total, counts.ok, counts.failed, counts.skipped
        status.other_version = counts.other_version
        status.waiting = counts.total - counts.ok - counts.failed - counts.skipped
        status.elapsed = now - self.started
        status.rate = 60 * status.finished_now / status.elapsed if status.finished_now else None
        status.running = [
            {
                "task": item.task.words,
                "what": item.what,
                "done": item.done,
                "total": item.total,
                "seconds": round(now - item.started, 1),
            }
            for item in running
        ]
        opened = sum(record.status == "ok" for record in self.progress.records.values())
        failed = sum(record.status == "failed" for record in self.progress.records.values())
        status.subjects = {"total": len(self.progress.plan.targets), "opened": opened, "failed": failed}

    def _estimate_trials(self, unopened: int) -> float | None:
        """Estimate the seconds of the trials left, on one worker, from the mean duration of each method.

        Durations of this run take precedence over those of earlier runs, which may have used other machines.
        """
        averages = self._earlier | {name: sum(seconds) / len(seconds) for name, seconds in self._seconds.items()}
        if not averages:
            return None
        usual = sum(averages.values()) / len(averages)
        seconds = sum(count * averages.get(name, usual) for name, count in self.progress.count_waiting().items())
        return seconds + unopened * averages.get("open", 0.0)

    def _estimate_trainings(
        self, trainings: Sequence[TargetPlan], running: Iterable[RunningTask], now: float
    ) -> float | None:
        """Estimate the seconds of the trainings left, on one worker; None before the first epoch of this run ends."""
        rates, done = dict(self._epoch_seconds), 0.0
        for item in running:
            if item.task.kind == "train" and item.done:
                architecture, epochs = self._describe_training(item.task.target.plan)
                rates[architecture] = max(rates.get(architecture, 0.0), (now - item.started) / item.done)
                done += min(item.done, epochs) * rates[architecture]
        if not trainings or not rates:
            return None if trainings else 0.0
        usual = sum(rates.values()) / len(rates)
        described = [self._describe_training(target) for target in trainings]
        return max(sum(epochs * rates.get(architecture, usual) for architecture, epochs in described) - done, 0.0)

    def _describe_training(self, target: TargetPlan) -> tuple[str, int]:
        """The architecture and the number of epochs of a target that is trained."""
        if target.key not in self._recipes:
            config = TrainConfig.model_validate(target.train)
            self._recipes[target.key] = config.architecture, config.epochs
        return self._recipes[target.key]
