"""The runner: gives tasks to workers, records the trials lost with a worker, maintains the index, and reports status.

The outcome of a task is written before anything else happens, so the runner can be killed at any moment: the files
record what is done, and the next run does the rest.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from securitynet.assessments.environment import read_version
from securitynet.assessments.run_trial import is_full_disk, read_clock
from securitynet.records import TrialResult
from securitynet.results.index import Index
from securitynet.results.root import FolderRoot, Root
from securitynet.results.store import FOLDER, TrialStore
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore
from securitynet.studies.definition.plan import StudyPlan, StudyTrial
from securitynet.studies.execution import lock as study_lock
from securitynet.studies.execution.executors.base import (
    Event,
    Executor,
    ExecutorConfig,
    TaskCompletion,
    TaskProgress,
    WorkerDeath,
)
from securitynet.studies.execution.interrupts import handle_interrupts
from securitynet.studies.execution.lock import Note
from securitynet.studies.execution.progress import PendingTrials, StudyProgress
from securitynet.studies.execution.run_options import (
    RunOptions,
    StudyStopped,
    bound_memory,
    make_storage_error,
    refresh_index,
    write_study,
)
from securitynet.studies.execution.scheduler import Schedule, TargetTasks, Task, find_group
from securitynet.studies.execution.status import Status
from securitynet.studies.execution.status_reporter import SHOW_EVERY, RunningTask, StatusReporter
from securitynet.studies.execution.task_records import TRIAL_KINDS, TaskOutcome, WorkerConfig, WorkerTask
from securitynet.studies.execution.term import TERM
from securitynet.studies.execution.worker_tasks import BEGAN, describe_task_error

_MOST_FALSE_STARTS = 3


@dataclass
class Runner:
    """Runs a study; see `run`.

    Args:
        plan: The study.
        root: Root of the results.
        options: Options of the run.
        make_executor: Creates the executor.
        on_status: Called with the status a few times a second.
        note: Called with messages for the user.
    """

    plan: StudyPlan
    root: Root
    options: RunOptions
    make_executor: Callable[[ExecutorConfig], Executor]
    on_status: Callable[[Status], None] | None = None
    note: Note = print

    def run(self) -> Status:
        """Run all pending trials, and return the final status.

        Raises:
            StudyRuns: If another runner is working on this study.
            StudyStopped: If nothing can be written any more, or workers cannot start.
            KeyboardInterrupt: On the second Ctrl-C.
        """
        with study_lock.hold_study_lock(self.options.state, self.root, self.note) as lock:
            if isinstance(self.root, FolderRoot):
                for folder in (FOLDER, "subjects", "models"):
                    self.root.remove_leftovers(folder)
                self.root.remove_leftovers(".", deep=False)
            self._index = Index(self.options.index, self.root)
            try:
                return self._run(lock)
            except OSError as error:
                if is_full_disk(error) or isinstance(error, PermissionError):
                    raise make_storage_error(describe_task_error(error)) from error
                raise
            finally:
                self._index.close()

    def _run(self, lock: study_lock.HeldLock) -> Status:
        started = time.monotonic()
        self._attempts: Counter[str] = Counter()
        self._running: dict[int, RunningTask] = {}
        self._stopping = False
        self._false_starts = 0
        self._failed_work: dict[str, tuple[str, str | None]] = {}
        self.store, self.records = TrialStore(self.root), StudyTargetStore(self.root)
        refresh_index(self._index, self.note)
        options = self.options
        self.progress = StudyProgress(
            self.plan, self._index, retry_failed=options.retry_failed, refresh=options.refresh
        )
        self._reporter = StatusReporter(
            self.plan.study.name, self.progress, self._index, options, started, self.on_status, self.note
        )
        write_study(self.root, self.plan)
        self.progress.drop_stale(self.records)
        schedule = self._schedule = Schedule(self._list_targets(), memory=bound_memory(options.settings))
        if schedule.finished:
            return self._end("finished")
        executor = self.make_executor(self._begin_term(lock))
        self._reporter.status.workers = executor.slots
        try:
            with handle_interrupts(self._stop):
                self._loop(executor, schedule)
        finally:
            executor.close()
            for slot in list(self._running):
                schedule.requeue(self._running.pop(slot).task)
            self._end("stopped")
        refresh_index(self._index, self.note)
        return self._end("stopped" if self._stopping and not schedule.finished else "finished")

    def _begin_term(self, lock: study_lock.HeldLock) -> ExecutorConfig:
        """Write the mark of this run, so that workers of earlier runs stop writing."""
        measures, options = self.plan.study.measures, self.options
        term = os.urandom(12).hex() if lock.number is None else f"{lock.number}:{os.urandom(12).hex()}"
        self.root.write(TERM, term.encode())
        worker = WorkerConfig(
            root=self.root.name if self.root.folder is None else str(self.root.folder.absolute()),
            cache=options.cache,
            level=measures.level,
            fprs=measures.fprs,
            term=term,
        )
        return ExecutorConfig(worker, options.state, options.settings, lock.descriptor)

    def _stop(self) -> bool:
        """Handle Ctrl-C: after the first, running tasks are finished; return whether this is a later one."""
        if self._stopping:
            return True
        self._stopping = True
        self.note(f"Finishing {len(self._running)} running tasks; press Ctrl-C again to stop at once.")
        return False

    def _loop(self, executor: Executor, schedule: Schedule) -> None:
        while not schedule.finished:
            if not self._stopping:
                for slot in range(executor.slots):
                    if slot not in self._running:
                        task = schedule.next(slot)
                        if task is not None:
                            self._running[slot] = RunningTask(task, time.monotonic())
                            executor.submit(slot, self._make_worker_task(slot, task))
            if not self._running:
                if self._stopping:
                    return
                raise StudyStopped("Some work is left that no worker can do; this is a bug in securitynet.")
            for event in executor.wait(SHOW_EVERY):
                self._handle(event)
            self._end_late(executor)
            self._report("stopping" if self._stopping else "running")

    def _list_targets(self) -> Iterator[TargetTasks]:
        """List the targets with pending work, and record everything that needs no workers."""
        for target in self.plan.targets:
            record = self.progress.records.get(target.key)
            if target.obstacle is not None:
                self._record_unopened(target.key, target.obstacle, None)
                self._reporter.report_failure(f"opening {target.label}", target.obstacle)
            elif record is None or (record.status == "failed" and self.options.retry_failed):
                yield TargetTasks(target)
            elif record.status == "ok":
                pending = self.progress.find_pending(target, record)
                self._record_skipped(pending)
                if pending.run or pending.recompute:
                    yield TargetTasks(target)
            else:
                self._reporter.report_failure(f"opening {target.label}", record.reason or "")

    def _make_worker_task(self, slot: int, task: Task) -> WorkerTask:
        trials = task.target.trials if task.kind == "list_dependencies" else [task.trial] if task.trial else []
        trials = [trial for _, trial in task.members] or trials
        study = self.plan.study
        return WorkerTask(
            kind=task.kind,
            target=task.target.plan,
            others=tuple(target.plan for target in task.targets[1:]),
            keep=tuple(self._schedule.list_held(slot)),
            trials=tuple(trial.request() for trial in trials),
            dependency=task.key if task.kind == "run_dependency" else None,
            accuracy_tolerance=study.accuracy_tolerance,
            on_mismatch=study.on_mismatch,
        )

    def _handle(self, event: Event) -> None:
        running = self._running.get(event.slot)
        if isinstance(event, TaskProgress):
            if running is not None and event.what == BEGAN:
                running.trial_started = time.monotonic()
            elif running is not None:
                running.what, running.done, running.total = event.what, event.done, event.total
            return
        if isinstance(event, WorkerDeath) and not (event.began or event.final or event.blameless):
            self._false_starts += 1
            if self._false_starts > _MOST_FALSE_STARTS:
                raise StudyStopped(
                    f"Workers cannot start: {event.why}.", hint=event.output[-500:] or "See the logs of the study."
                )
        if running is None:
            self._schedule.release(event.slot)
            return
        del self._running[event.slot]
        if isinstance(event, TaskCompletion):
            self._false_starts = 0
            self._complete(running.task, event.outcome)
            return
        self._schedule.release(event.slot)
        self._lose(running.task, event)

    def _complete(self, task: Task, outcome: TaskOutcome) -> None:
        if outcome.status == "storage":
            self._schedule.requeue(task)
            raise make_storage_error(outcome.reason or "")
        if task.members:
            self._complete_group(task, outcome)
            return
        if outcome.status == "failed":
            self._fail(task, outcome.reason or "", outcome.traceback)
            return
        if task.kind == "open":
            assert outcome.record is not None
            self.progress.records[task.target.plan.key] = outcome.record
            self._open(task.target, outcome.record, outcome.memory)
            self._reporter.add_seconds("open", outcome.seconds)
        elif task.kind == "train":
            self._reporter.add_training(task.target.plan, outcome.seconds)
        elif task.kind == "list_dependencies":
            self._schedule.set_dependencies(task.target, outcome.dependencies, outcome.descriptions)
            self._fail_blocked()
        elif task.trial is not None and task.kind in TRIAL_KINDS:
            assert outcome.trial_status is not None
            self._reporter.add_seconds(task.trial.plan.name, outcome.seconds)
            self._count(task.trial, outcome.trial_status)
            if outcome.trial_status == "failed":
                self._reporter.report_failure(task.words, outcome.reason or "")
        self._schedule.end(task, True)

    def _complete_group(self, task: Task, outcome: TaskOutcome) -> None:
        """Count the trials of a group that ended, and put back the others, to be run alone."""
        for target, trial in task.members:
            if trial.id not in outcome.together:
                self._schedule.put_back(target, trial)
                continue
            status, reason = outcome.together[trial.id]
            if outcome.seconds:
                self._reporter.add_seconds(trial.plan.name, outcome.seconds / len(task.members))
            self._count(trial, status)
            if status == "failed":
                self._reporter.report_failure(f"{trial.words} on {target.plan.label}", reason or "")
        self._schedule.end(task, True)

    def _recover_group(self, task: Task) -> None:
        """Count the trials of a lost group that its worker had stored, and put back the others, to be run alone."""
        stored = {trial.id: self.store.load(trial.id) for _, trial in task.members}
        ended = {
            id_: (result.status, None)
            for id_, result in stored.items()
            # A failure may be that of an earlier run.
            if result is not None and result.status == "ok" and result.environment["securitynet"] == read_version()
        }
        self._complete_group(task, TaskOutcome(together=ended))

    def _open(self, target: TargetTasks, record: StudyTargetRecord, memory: int | None) -> None:
        for check in record.checks:
            if not check.agrees:
                what = check.note or f"the {check.what} is {check.found}, but {check.said} is stated."
                self.note(f"{target.plan.label}: {what}")
        pending = self.progress.find_pending(target.plan, record)
        self._record_skipped(pending)
        self._schedule.mark_recomputed(trial.id for trial in pending.recompute)
        shares_work = any(trial.plan.shares_work for trial in pending.run)
        groups = {trial.id: find_group(trial, record) for trial in pending.run if trial.plan.runs_together}
        trials = [*pending.recompute, *pending.run]
        self._schedule.open_target(target, trials, list_dependencies=shares_work, groups=groups, memory=memory)

    def _lose(self, task: Task, death: WorkerDeath) -> None:
        """Handle the death of a worker with this task."""
        if task.members:
            self._recover_group(task)
            return
        self._attempts[task.identity] += death.began and not death.blameless
        attempts = self._attempts[task.identity]
        if not death.final and attempts < self.options.settings.attempts:
            self._schedule.requeue(task)
            return
        times = "" if death.final or self.options.settings.attempts == 1 else f", {attempts} times"
        self._fail(task, f"the worker did not survive it: {death.why}{times}", death.output or None)

    def _fail(self, task: Task, reason: str, traceback: str | None) -> None:
        self._reporter.report_failure(task.words, reason)
        if task.kind in TRIAL_KINDS:
            assert task.trial is not None
            self._record_failure(task.trial, reason, traceback)
        elif task.kind == "train":
            for target in self._schedule.targets:
                if target.plan.train_key == task.key and target.state == "closed":
                    self._record_unopened(target.plan.key, f"training failed: {reason}", traceback)
                    self._schedule.fail_target(target)
        elif task.kind in ("open", "list_dependencies"):
            self._record_unopened(task.target.plan.key, reason, traceback)
            self._schedule.fail_target(task.target)
        self._schedule.end(task, False)
        if task.kind == "run_dependency" and task.key is not None:
            self._failed_work[task.key] = reason, traceback
            self._fail_blocked()

    def _fail_blocked(self) -> None:
        """Record trials as failed that depend on failed shared work."""
        for target in self._schedule.targets:
            for trial, key in self._schedule.take_blocked(target):
                what = self._schedule.descriptions.get(key, "shared work")
                reason, traceback = self._failed_work[key]
                self._record_failure(trial, f"{what} that it needs failed: {reason}", traceback)

    def _end_late(self, executor: Executor) -> None:
        """End tasks that have exceeded their time limit."""
        settings = self.options.settings
        for slot, running in list(self._running.items()):
            # The limit of a trial does not include the time to load the target.
            setup = running.trial_started is None or not (running.task.kind in TRIAL_KINDS or running.task.members)
            limit = settings.setup_time_limit if setup else settings.time_limit
            allowed = None if limit is None else limit * len(running.task.targets)
            if allowed is not None and time.monotonic() - (running.trial_started or running.started) > allowed:
                executor.kill(slot)
                del self._running[slot]
                self._schedule.release(slot)
                if running.task.members:
                    self._recover_group(running.task)
                    continue
                self._fail(running.task, f"it took longer than its time limit of {limit:g} seconds", None)

    def _record_skipped(self, pending: PendingTrials) -> None:
        for trial in pending.skip:
            self.store.save(
                TrialResult(spec=trial.spec, status="skipped", reason=trial.obstacle, finished=read_clock())
            )

    def _record_failure(self, trial: StudyTrial, reason: str, traceback: str | None) -> None:
        result = TrialResult(
            spec=trial.spec,
            status="failed",
            reason=reason,
            traceback=traceback,
            environment={"securitynet": read_version()},
            finished=read_clock(),
        )
        self.store.save(result)
        self._count(trial, "failed")

    def _count(self, trial: StudyTrial, status: str) -> None:
        self.progress.record_outcome(trial, status)
        self._reporter.status.finished_now += 1

    def _record_unopened(self, key: str, reason: str, traceback: str | None) -> None:
        """Record that a target cannot be opened."""
        target = next(target for target in self.plan.targets if target.key == key)
        record = StudyTargetRecord(
            key=key,
            label=target.label,
            status="failed",
            reason=reason,
            traceback=traceback,
            declared=target.declared(),
            catalog=target.catalog,
            codes=target.codes,
            environment={"securitynet": read_version()},
            finished=read_clock(),
        )
        earlier = self.progress.records.get(key)
        self.progress.records[key] = record
        self.progress.fail_target(target)
        if earlier is None or earlier.reason != reason or earlier.status != "failed":
            self.records.save(record)

    def _report(self, state: str, *, force: bool = False) -> None:
        unopened, trainings = len(self._schedule.list_unopened()), self._schedule.list_trainings()
        self._reporter.report(state, self._running.values(), unopened, trainings, force=force)

    def _end(self, state: str) -> Status:
        self._report(state, force=True)
        return self._reporter.status
