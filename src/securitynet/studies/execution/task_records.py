"""What the runner and its workers exchange: configuration, tasks, outcomes. This module imports no torch.

All are Pydantic records, so that they can go through any pipe: ``record.model_dump_json()`` on one side,
``Class.model_validate_json(text)`` on the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from securitynet.records import Record
from securitynet.results.subjects import StudyTargetRecord
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.definition.trial_request import TrialRequest

TaskKind = Literal["train", "open", "list_dependencies", "run_dependency", "run_trial", "recompute_metrics"]

TRIAL_KINDS = frozenset({"run_trial", "recompute_metrics"})
"""Kinds of tasks that end with a result of their trial."""


class _Message(Record):
    # A setting may be infinite (an unbounded norm); JSON's own null would turn it into None.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class WorkerPlacement(_Message):
    """What one worker may use of its machine.

    Attributes:
        device: As the user writes it: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of one operation.
        cores: Cores that it is bound to; empty to let it roam.
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
        term: Mark of this run; None to write unconditionally. A worker that outlives its runner writes nothing once
            another run has begun, because that run has left a mark of its own.
        placement: What it may use.
    """

    root: str
    cache: Path
    level: float
    fprs: tuple[float, ...]
    term: str | None = None
    placement: WorkerPlacement = WorkerPlacement()


class WorkerTask(_Message):
    """One thing for a worker to do.

    Attributes:
        kind: ``train`` a target; ``open`` one: load it, check it, collect its signals; ``list_dependencies``: find out
            which shared work trials need; ``run_dependency``: do one piece of it; ``run_trial``; ``recompute_metrics``
            of a finished trial from its raw output.
        target: Which target.
        trials: Of which trials the dependencies are listed; else the one that is run, or one that needs the dependency.
        dependency: Key of the shared work that is to be done.
        accuracy_tolerance: How far the accuracy of the target may lie from what is said of it.
        on_mismatch: What to do with a target that is not as accurate as said.
    """

    kind: TaskKind
    target: TargetPlan
    trials: tuple[TrialRequest, ...] = ()
    dependency: str | None = None
    accuracy_tolerance: float = 1.0
    on_mismatch: Literal["note", "fail"] = "note"

    @property
    def trial(self) -> TrialRequest:
        """The only trial of a task that concerns one."""
        (trial,) = self.trials
        return trial


class TaskOutcome(_Message):
    """What became of a task.

    Attributes:
        status: ``ok``; ``failed``, with reason and traceback; ``storage``: nothing can be written any more.
        seconds: Wall-clock time.
        reason: Why it failed, in one line; or why the trial did.
        traceback: Of the failure.
        record: What was found out about the target that was opened.
        dependencies: Trial id -> keys of the shared work that the trial needs.
        descriptions: Key of shared work -> what it is, for people.
        trial_status: How the trial ended.
    """

    status: Literal["ok", "failed", "storage"] = "ok"
    seconds: float = 0.0
    reason: str | None = None
    traceback: str | None = None
    record: StudyTargetRecord | None = None
    dependencies: dict[str, list[str]] = Field(default_factory=dict)
    descriptions: dict[str, str] = Field(default_factory=dict)
    trial_status: Literal["ok", "failed", "skipped"] | None = None


class WorkerMessage(_Message):
    """A line from a worker process: what it is at, or the outcome of its task. The first, empty one says it is ready.

    Attributes:
        what: What it is at; `securitynet.studies.execution.worker_tasks.BEGAN` when the trial itself begins.
        done: How many of ``total`` are done.
        total: Of how many.
        outcome: Of the task, when it has ended.
    """

    what: str | None = None
    done: int = 0
    total: int = 0
    outcome: TaskOutcome | None = None
