"""The runner: gives workers their tasks, records what is lost with them, keeps the index, and tells how far it is.

Whatever becomes of a task is written before the next thing happens, so that the runner can be killed at any moment: the
files say what is done, and the next run does the rest.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from securitynet.assessments.environment import version
from securitynet.assessments.run_trial import is_full_disk, now
from securitynet.files import write_json
from securitynet.records import TrialResult
from securitynet.results.index import Index
from securitynet.results.root import FolderRoot, Root
from securitynet.results.store import FOLDER, TrialStore
from securitynet.results.subjects import SubjectRecord, SubjectStore
from securitynet.studies.definition.plan import StudyPlan, StudyTrial
from securitynet.studies.execution import lock as study_lock
from securitynet.studies.execution import status as study_status
from securitynet.studies.execution.executors.base import Bench, Died, Event, Executor, Finished, Progressed
from securitynet.studies.execution.progress import Ledger, Sorted
from securitynet.studies.execution.run_options import (
    Note,
    RunOptions,
    StudyStopped,
    no_storage,
    refresh_index,
    write_study,
)
from securitynet.studies.execution.scheduler import Schedule, Subject, Task
from securitynet.studies.execution.status import Status
from securitynet.studies.execution.worker_tasks import BEGAN, TERM, Job, reason_of

_STATUS_EVERY = 1.0
_INDEX_EVERY = 30.0
_PATIENT = 0.2
_MOST_FALSE_STARTS = 3


@dataclass
class _Running:
    task: Task
    began: float
    begun: float | None = None
    what: str = ""
    done: int = 0
    total: int = 0


@dataclass
class Runner:
    """Runs a study; see `run`.

    Args:
        plan: The study.
        root: Where results go.
        options: See `RunOptions`.
        make_executor: Gives the executor its orders.
        on_status: Told how far it is, a few times a second.
        note: Told what the user should know.
    """

    plan: StudyPlan
    root: Root
    options: RunOptions
    make_executor: Callable[[Bench], Executor]
    on_status: Callable[[Status], None] | None = None
    note: Note = print
    status: Status = field(default_factory=Status)

    def run(self) -> Status:
        """Run what is not there yet; returns how it ended.

        Raises:
            StudyRuns: If another runner is at work on this study.
            StudyStopped: If nothing can be written any more, or workers can't start.
            KeyboardInterrupt: At the second Ctrl-C.
        """
        with study_lock.held(self.options.state, self.root, self.note) as lock:
            if isinstance(self.root, FolderRoot):
                for folder in (FOLDER, "subjects"):
                    self.root.remove_leftovers(folder)
            self._index = Index(self.options.index, self.root)
            try:
                return self._run(lock)
            except OSError as error:
                if is_full_disk(error) or isinstance(error, PermissionError):
                    raise no_storage(reason_of(error)) from error
                raise
            finally:
                self._index.close()

    def _run(self, lock: int) -> Status:
        self._started = time.monotonic()
        self._attempts: Counter[str] = Counter()
        self._running: dict[int, _Running] = {}
        self._stopping = self._storage = False
        self._false_starts = 0
        self._why: dict[str, tuple[str, str | None]] = {}
        self._spent: defaultdict[str, list[float]] = defaultdict(list)
        self.store, self.subjects = TrialStore(self.root), SubjectStore(self.root)
        refresh_index(self._index, self.note)
        options = self.options
        self.ledger = Ledger(
            self.plan, self._index, retry_failed=options.retry_failed, refresh=options.refresh, note=self.note
        )
        write_study(self.root, self.plan)
        self.ledger.drop_stale(self.subjects)
        schedule = self._schedule = Schedule(self._with_work())
        self._timings = self._index.timings()
        self._told = self._indexed = self._shown = 0.0
        if schedule.finished:
            return self._end("finished")
        measures = self.plan.study.measures
        root = self.root.name if self.root.folder is None else str(self.root.folder.absolute())
        term = os.urandom(12).hex()
        self.root.write(TERM, term.encode())
        bench = Bench(root, options.cache, options.state, measures.level, measures.fprs, options.settings, term, lock)
        executor = self.make_executor(bench)
        self.status.workers = executor.slots
        try:
            with self._interruptible():
                self._loop(executor, schedule)
        finally:
            executor.close()
            for slot in list(self._running):
                schedule.again(self._running.pop(slot).task)
            self._tell(force=True, state="stopped")
        refresh_index(self._index, self.note)
        return self._end("stopped" if self._stopping and not schedule.finished else "finished")

    def _loop(self, executor: Executor, schedule: Schedule) -> None:
        while not schedule.finished:
            if not self._stopping:
                for slot in range(executor.slots):
                    if slot not in self._running:
                        task = schedule.next(slot)
                        if task is not None:
                            self._running[slot] = _Running(task, time.monotonic())
                            executor.submit(slot, self._job(task))
            if not self._running:
                if self._stopping:
                    return
                raise StudyStopped("Work is left that no worker can take; this is a bug of securitynet.")
            for event in executor.wait(_PATIENT):
                self._meet(event)
            self._end_late(executor)
            self._tell()

    def _with_work(self) -> Iterator[Subject]:
        """Subjects of which something is to be done; what can be recorded without workers is recorded."""
        for declared in self.plan.subjects:
            record = self.ledger.records.get(declared.key)
            if declared.obstacle is not None:
                self._subject_failed(declared.key, declared.obstacle, None)
            elif record is None or (record.status == "failed" and self.options.retry_failed):
                yield Subject(declared)
            elif record.status == "ok":
                sorted_ = self.ledger.sort(declared, record)
                self._skip(sorted_)
                if sorted_.run or sorted_.measure:
                    yield Subject(declared)

    def _job(self, task: Task) -> Job:
        declared = task.subject.plan
        job: Job = {
            "do": task.kind,
            "subject": {
                "key": declared.key,
                "label": declared.label,
                "options": declared.options,
                "declared": declared.declared(),
                "train": declared.train,
                "catalog": declared.catalog,
                "codes": declared.codes,
                "accuracy": declared.accuracy,
                "checksum": declared.checksum,
            },
        }
        if task.kind == "train":
            return {"do": "train", "train": declared.train}
        if task.kind == "open":
            study = self.plan.study
            return {**job, "tolerance": study.accuracy_tolerance, "on_mismatch": study.on_mismatch}
        if task.kind == "survey":
            return {**job, "trials": [trial.job() for trial in task.subject.trials]}
        assert task.trial is not None
        return {**job, "trial": task.trial.job(), "key": task.key}

    def _meet(self, event: Event) -> None:
        running = self._running.get(event.slot)
        if isinstance(event, Progressed):
            if running is not None and event.what == BEGAN:
                running.begun = time.monotonic()
            elif running is not None:
                running.what, running.done, running.total = event.what, event.done, event.total
            return
        if isinstance(event, Died) and not (event.began or event.final or event.blameless):
            self._false_starts += 1
            if self._false_starts > _MOST_FALSE_STARTS:
                raise StudyStopped(
                    f"Workers can't start: {event.why}.", hint=event.output[-500:] or "See the logs of the study."
                )
        if running is None:
            self._schedule.release(event.slot)
            return
        del self._running[event.slot]
        task = running.task
        if isinstance(event, Finished):
            self._false_starts = 0
            self._done(task, event.outcome)
            return
        self._schedule.release(event.slot)
        self._lost(task, event.why, event.output, final=event.final, counts=event.began and not event.blameless)

    def _done(self, task: Task, outcome: dict[str, Any]) -> None:
        if outcome["status"] == "storage":
            self._schedule.again(task)
            raise no_storage(outcome["reason"])
        ok = outcome["status"] == "ok"
        if not ok:
            self._failed(task, outcome["reason"], outcome.get("traceback"))
            return
        if task.kind == "open":
            self.ledger.records[task.subject.plan.key] = record = SubjectRecord.model_validate(outcome["record"])
            self._opened(task.subject, record)
            self._spent["open"].append(outcome["seconds"])
        elif task.kind == "survey":
            self._schedule.surveyed(task.subject, outcome["needs"], outcome["what"])
            self._block()
        elif task.trial is not None and task.kind in ("trial", "measure"):
            self._spent[task.trial.plan.name].append(outcome["seconds"])
            self.ledger.count(task.trial, outcome["trial"])
            self.status.finished_now += 1
            if outcome["trial"] == "failed":
                self._tell_failure(task.words, outcome["reason"] or "")
        self._schedule.ended(task, True)

    def _opened(self, subject: Subject, record: SubjectRecord) -> None:
        for check in record.checks:
            if not check.agrees:
                self.note(f"{subject.plan.label}: the {check.what} is {check.found}, where {check.said} is said.")
        sorted_ = self.ledger.sort(subject.plan, record)
        self._skip(sorted_)
        self._schedule.remeasure(trial.id for trial in sorted_.measure)
        survey = any(trial.plan.shares_work for trial in sorted_.run)
        self._schedule.opened(subject, [*sorted_.measure, *sorted_.run], survey=survey)

    def _skip(self, sorted_: Sorted) -> None:
        for trial in sorted_.skip:
            self.store.save(TrialResult(spec=trial.spec, status="skipped", reason=trial.obstacle, finished=now()))

    def _lost(self, task: Task, why: str, output: str, *, final: bool, counts: bool) -> None:
        """A worker died with this task."""
        self._attempts[task.identity] += counts
        if not final and self._attempts[task.identity] < self.options.settings.attempts:
            self._schedule.again(task)
            return
        tried = "" if final or self.options.settings.attempts == 1 else f", {self._attempts[task.identity]} times"
        self._failed(task, f"the worker did not survive it: {why}{tried}", output or None)

    def _failed(self, task: Task, reason: str, traceback: str | None) -> None:
        self._tell_failure(task.words, reason)
        if task.kind in ("trial", "measure"):
            assert task.trial is not None
            self._record_failure(task.trial, reason, traceback)
        elif task.kind == "train":
            for subject in self._schedule.subjects:
                if subject.plan.train_key == task.key and subject.state == "closed":
                    self._subject_failed(subject.plan.key, f"training failed: {reason}", traceback)
                    self._schedule.fail(subject)
        elif task.kind in ("open", "survey"):
            self._subject_failed(task.subject.plan.key, reason, traceback)
            self._schedule.fail(task.subject)
        self._schedule.ended(task, False)
        if task.kind == "share" and task.key is not None:
            self._why[task.key] = reason, traceback
            self._block()

    def _block(self) -> None:
        """The trials that need shared work which failed are recorded as failed."""
        for subject in self._schedule.subjects:
            for trial, key in self._schedule.blocked(subject):
                what = self._schedule.what.get(key, "shared work")
                reason, traceback = self._why[key]
                self._record_failure(trial, f"{what} that it needs failed: {reason}", traceback)

    def _record_failure(self, trial: StudyTrial, reason: str, traceback: str | None) -> None:
        result = TrialResult(
            spec=trial.spec,
            status="failed",
            reason=reason,
            traceback=traceback,
            environment={"securitynet": version()},
            finished=now(),
        )
        self.store.save(result)
        self.ledger.count(trial, "failed")
        self.status.finished_now += 1

    def _subject_failed(self, key: str, reason: str, traceback: str | None) -> None:
        declared = next(subject for subject in self.plan.subjects if subject.key == key)
        record = SubjectRecord(
            key=key,
            label=declared.label,
            status="failed",
            reason=reason,
            traceback=traceback,
            declared=declared.declared(),
            catalog=declared.catalog,
            codes=declared.codes,
            environment={"securitynet": version()},
            finished=now(),
        )
        earlier = self.ledger.records.get(key)
        self.ledger.records[key] = record
        self.ledger.subject_failed(declared)
        if earlier is None or earlier.reason != reason or earlier.status != "failed":
            self.subjects.save(record)

    def _end_late(self, executor: Executor) -> None:
        """End tasks that have passed their time limit."""
        settings = self.options.settings
        for slot, running in list(self._running.items()):
            trial = running.task.kind in ("trial", "measure")
            setup = not trial or running.begun is None
            limit = settings.setup_time_limit if setup else settings.time_limit
            if limit is not None and time.monotonic() - (running.begun or running.began) > limit:
                executor.kill(slot)
                del self._running[slot]
                self._schedule.release(slot)
                self._failed(running.task, f"it took longer than its time limit of {limit:g} seconds", None)

    def _tell_failure(self, what: str, reason: str) -> None:
        self.status.failures = [*self.status.failures[-9:], (what, reason)]
        self.note(f"{what} failed: {reason}")

    def _tell(self, *, force: bool = False, state: str | None = None) -> None:
        at = time.monotonic()
        if not force and at - self._shown < _PATIENT:
            return
        self._shown = at
        status, counts = self.status, self.ledger.counts()
        status.name = self.plan.study.name
        status.state = state or ("stopping" if self._stopping else "running")
        status.total, status.ok, status.failed, status.skipped = counts.total, counts.ok, counts.failed, counts.skipped
        status.other_version = counts.other_version
        status.waiting = counts.total - counts.ok - counts.failed - counts.skipped
        status.elapsed = at - self._started
        status.rate = 60 * status.finished_now / status.elapsed if status.finished_now else None
        status.left = self._left()
        status.running = [
            {"task": running.task.words, "what": running.what, "done": running.done, "total": running.total,
             "seconds": round(at - running.began, 1)}
            for running in self._running.values()
        ]  # fmt: skip
        opened = sum(record.status == "ok" for record in self.ledger.records.values())
        failed = sum(record.status == "failed" for record in self.ledger.records.values())
        status.subjects = {"total": len(self.plan.subjects), "opened": opened, "failed": failed}
        if self.on_status:
            self.on_status(status)
        if force or at - self._told >= _STATUS_EVERY:
            self._told = at
            with suppress(OSError):  # a full disk stops the study where results are written
                write_json(self.options.state / study_status.FILE, status.to_json())
        if at - self._indexed >= _INDEX_EVERY:
            self._indexed = at
            refresh_index(self._index, self.note)

    def _left(self) -> float | None:
        """Seconds that are left: the mean of each method, over the workers."""
        waiting = self.ledger.waiting()
        known = {name: sum(spent) / len(spent) for name, spent in self._spent.items()}
        known |= {name: mean for name, (_, mean) in self._timings.items() if name not in known}
        if not known:
            return None
        usual = sum(known.values()) / len(known)
        seconds = sum(count * known.get(name, usual) for name, count in waiting.items())
        seconds += sum(1 for _ in self._schedule.waiting()) * known.get("open", 0.0)
        return seconds / max(self.status.workers, 1)

    def _end(self, state: str) -> Status:
        self._tell(force=True, state=state)
        return self.status

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C lets what runs be finished; the second, or SIGTERM, stops at once."""

        def interrupt(_: int, __: FrameType | None) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True
            self.note(f"Finishing {len(self._running)} running tasks; press Ctrl-C again to stop at once.")

        def terminate(_: int, __: FrameType | None) -> None:
            raise SystemExit(143)

        before = {}
        try:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminate)
        except ValueError:  # not in the main thread: whoever started this one handles signals
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
