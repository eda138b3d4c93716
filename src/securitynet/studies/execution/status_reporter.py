"""Reports the status of a run: to the caller, to ``status.json`` and to the index, each at its own interval."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from securitynet.files import write_json
from securitynet.results.index import Index
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
        self._earlier = {name: mean for name, (_, mean) in self.index.timings().items()}

    def add_seconds(self, name: str, seconds: float) -> None:
        """Record how long a trial of a method, or ``open``, took."""
        self._seconds[name].append(seconds)

    def report_failure(self, what: str, reason: str) -> None:
        """Report what failed, and why."""
        self.status.failures = [*self.status.failures[-9:], (what, reason)]
        self.note(f"{what} failed: {reason}")

    def report(self, state: str, running: Iterable[RunningTask], unopened: int, *, force: bool = False) -> None:
        """Update the status, and report it where a report is due.

        Args:
            state: See `Status`.
            running: Running tasks.
            unopened: Number of targets still to be opened.
            force: Whether to report everywhere now.
        """
        now = time.monotonic()
        if not force and now - self._shown < SHOW_EVERY:
            return
        self._shown = now
        self._update(state, running, unopened, now)
        if self.on_status:
            self.on_status(self.status)
        if force or now - self._written >= _WRITE_EVERY:
            self._written = now
            with suppress(OSError):  # a full disk stops the study when results are written, not here
                write_json(self.options.state / study_status.FILE, self.status.to_json())
        if now - self._indexed >= _INDEX_EVERY:
            self._indexed = now
            refresh_index(self.index, self.note)

    def _update(self, state: str, running: Iterable[RunningTask], unopened: int, now: float) -> None:
        status, counts = self.status, self.progress.count_all()
        status.name, status.state = self.name, state
        status.total, status.ok, status.failed, status.skipped = counts.total, counts.ok, counts.failed, counts.skipped
        status.other_version = counts.other_version
        status.waiting = counts.total - counts.ok - counts.failed - counts.skipped
        status.elapsed = now - self.started
        status.rate = 60 * status.finished_now / status.elapsed if status.finished_now else None
        status.left = self._estimate_left(unopened)
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

    def _estimate_left(self, unopened: int) -> float | None:
        """Estimate the remaining seconds from the mean duration of each method and the number of workers.

        Durations of this run take precedence over those of earlier runs, which may have used other machines.
        """
        averages = self._earlier | {name: sum(seconds) / len(seconds) for name, seconds in self._seconds.items()}
        if not averages:
            return None
        usual = sum(averages.values()) / len(averages)
        seconds = sum(count * averages.get(name, usual) for name, count in self.progress.count_waiting().items())
        seconds += unopened * averages.get("open", 0.0)
        return seconds / max(self.status.workers, 1)
