"""`Executor`: slots that run one task at a time, and events about the tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution.task_records import TaskOutcome, WorkerConfig, WorkerTask


@dataclass(frozen=True)
class TaskProgress:
    """Progress of a task.

    Attributes:
        slot: Slot of the task.
        what: Description of the current phase.
        done: Units of the phase that are done.
        total: Units of the phase in total.
    """

    slot: int
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class TaskCompletion:
    """The end of a task, successful or not.

    Attributes:
        slot: Slot of the task.
        outcome: Its outcome.
    """

    slot: int
    outcome: TaskOutcome


@dataclass(frozen=True)
class WorkerDeath:
    """The death of a worker, with its task.

    Attributes:
        slot: Slot of the worker.
        why: Reason in words: signal, exit code or node.
        output: The last lines that the worker printed.
        began: Whether the worker had been ready to take tasks.
        final: Whether another attempt would be useless, because a limit was exceeded.
        blameless: Whether the task cannot have caused the death, because a machine was lost.
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
        worker: Configuration of all workers; the executor adds the placement of each.
        state: Folder on this machine for logs.
        settings: Number of workers, and their limits.
        lock: File descriptor of the study's lock. Workers hold it too, so that no other runner starts while one of them
            is still working.
    """

    worker: WorkerConfig
    state: Path
    settings: RunSettings = field(default_factory=RunSettings)
    lock: int | None = None


class Executor(ABC):
    """Slots for tasks. A slot runs one task at a time; workers are started on demand.

    Attributes:
        slots: Number of slots.
    """

    slots: int

    @abstractmethod
    def submit(self, slot: int, task: WorkerTask) -> None:
        """Give a task to a free slot."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Event]:
        """Return the events that have occurred, waiting for at most this many seconds for the first."""

    @abstractmethod
    def kill(self, slot: int) -> None:
        """End the worker of a slot and its task at once, without an event."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""
