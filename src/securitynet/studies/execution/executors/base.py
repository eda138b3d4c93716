"""`Executor`: slots that take one task at a time, and events that say what became of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution.task_records import TaskOutcome, WorkerConfig, WorkerTask


@dataclass(frozen=True)
class TaskProgress:
    """A task goes on: ``done`` of ``total`` of ``what``."""

    slot: int
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class TaskCompletion:
    """A task has come to its end, well or not."""

    slot: int
    outcome: TaskOutcome


@dataclass(frozen=True)
class WorkerDeath:
    """The worker of a slot is gone, with its task.

    Attributes:
        why: In words: which signal, which exit code, which node.
        output: The end of what it printed.
        began: Whether it had come so far as to take tasks.
        final: Whether trying again would be useless: a limit was passed.
        blameless: Whether the task can't have caused it: a machine went away.
    """

    slot: int
    why: str
    output: str = ""
    began: bool = True
    final: bool = False
    blameless: bool = False


Event = TaskProgress | TaskCompletion | WorkerDeath


@dataclass(frozen=True)
class ExecutorConfig:
    """The configuration of an executor.

    Attributes:
        worker: Configuration of every worker; the executor adds each one's placement.
        state: Folder of this machine for logs.
        settings: How many workers there are, and what they may use.
        lock: Descriptor of the study's lock. Workers hold it too, so that no other runner starts while one of them is
            still at work.
    """

    worker: WorkerConfig
    state: Path
    settings: RunSettings = field(default_factory=RunSettings)
    lock: int | None = None


class Executor(ABC):
    """Slots for tasks. A slot takes one task at a time; workers are started when they are needed.

    Attributes:
        slots: How many.
    """

    slots: int

    @abstractmethod
    def submit(self, slot: int, task: WorkerTask) -> None:
        """Give a free slot a task."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Event]:
        """What has happened; waits for something to happen, but no longer than this."""

    @abstractmethod
    def kill(self, slot: int) -> None:
        """End the worker of a slot and its task, at once. No event reports it."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""
