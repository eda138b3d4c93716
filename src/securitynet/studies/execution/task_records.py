"""The messages between the runner and its workers: configuration, tasks, outcomes. This module imports no torch.

All are Pydantic records that can be sent as text: ``record.model_dump_json()`` on one side,
``Class.model_validate_json(text)`` on the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from securitynet.records import Record
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.definition.trial_request import TrialRequest

TaskKind = Literal[
    "train", "open", "list_dependencies", "run_dependency", "run_trial", "run_together", "recompute_metrics"
]

TrialStatus = Literal["ok", "failed", "skipped"]

TRIAL_KINDS = frozenset({"run_trial", "recompute_metrics"})
"""Kinds of tasks that produce a result of their trial."""


class _Message(Record):
    # A setting may be infinite (an unbounded norm); JSON's own null would turn it into None.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class WorkerPlacement(_Message):
    """The resources of one worker.

    Attributes:
        device: Device as the user writes it: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of one operation.
        cores: Cores that the worker is bound to; empty for all.
        environment: Environment variables of its process.
    """

    device: str = "auto"
    threads: int = 1
    cores: tuple[int, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)


class WorkerConfig(_Message):
    """The configuration of a worker, which it receives once, when it starts.

    Attributes:
        root: Folder or URL of the results.
        cache: Folder for what can be recomputed.
        level: Confidence level of the intervals.
        fprs: False-positive rates at which the true-positive rate is reported.
        term: Mark of this run; None to write unconditionally. A worker that outlives its runner stops writing once
            another run has written its own mark.
        placement: Resources of the worker.
    """

    root: str
    cache: Path
    level: float
    fprs: tuple[float, ...]
    term: str | None = None
    placement: WorkerPlacement = WorkerPlacement()


class WorkerTask(_Message):
    """A task for a worker.

    Attributes:
        kind: ``train`` a target; ``open`` one: load it, check it, collect its signals; ``list_dependencies``: find out
            which shared work trials need; ``run_dependency``: do one piece of it; ``run_trial``; ``run_together``: run
            one trial of each of several targets; ``recompute_metrics`` of a finished trial from its raw output.
        target: The target.
        others: Further targets of ``run_together``.
        keep: Keys of targets that stay open if they are open.
        trials: Trials whose dependencies are listed; else the trial to run, or one that needs the dependency; for
            ``run_together``, one trial for ``target`` and each of ``others``.
        dependency: Key of the shared work to do.
        accuracy_tolerance: Largest difference of the target's accuracy from its stated one.
        on_mismatch: What to do with a target that fails a check.
    """

    kind: TaskKind
    target: TargetPlan
    others: tuple[TargetPlan, ...] = ()
    keep: tuple[str, ...] = ()
    trials: tuple[TrialRequest, ...] = ()
    dependency: str | None = None
    accuracy_tolerance: float = 1.0
    on_mismatch: Literal["note", "skip", "fail"] = "note"

    @property
    def trial(self) -> TrialRequest:
        """The trial of a task that concerns a single one."""
        (trial,) = self.trials
        return trial


class TaskOutcome(_Message):
    """The outcome of a task.

    Attributes:
        status: ``ok``; ``failed``, with reason and traceback; or ``storage`` if nothing can be written any more.
        seconds: Wall-clock seconds.
        reason: Why the task or its trial failed, in one line.
        traceback: Traceback of the failure.
        record: Record of the target that was opened.
        dependencies: Trial id -> keys of the shared work that the trial needs.
        descriptions: Key of shared work -> description for people.
        trial_status: Status of the trial.
        memory: Bytes of memory that the opened target takes; None if that is not known.
        together: Trial id -> status and reason, of the trials that were run together. The others must be run alone.
    """

    status: Literal["ok", "failed", "storage"] = "ok"
    seconds: float = 0.0
    reason: str | None = None
    traceback: str | None = None
    record: StudyTargetRecord | None = None
    dependencies: dict[str, list[str]] = Field(default_factory=dict)
    descriptions: dict[str, str] = Field(default_factory=dict)
    trial_status: TrialStatus | None = None
    memory: int | None = None
    together: dict[str, tuple[TrialStatus, str | None]] = Field(default_factory=dict)


class WorkerMessage(_Message):
    """A message from a worker process: progress, or the outcome of its task. The first, empty one means it is ready.

    Attributes:
        what: Current phase; `securitynet.studies.execution.worker_tasks.BEGAN` when the trial itself begins.
        done: Units of the phase that are done.
        total: Units of the phase in total.
        outcome: Outcome of the task, when it has ended.
    """

    what: str | None = None
    done: int = 0
    total: int = 0
    outcome: TaskOutcome | None = None
