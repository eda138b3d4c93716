"""`Executor`: slots that take one job at a time, and events that say what became of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution.worker_tasks import Job, Outcome


@dataclass(frozen=True)
class Progressed:
    """A job goes on: ``done`` of ``total`` of ``what``."""

    slot: int
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A job is done; see `securitynet.studies.execution.worker_tasks.Workbench.do` for the outcome."""

    slot: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """The worker of a slot is gone, with its job.

    Attributes:
        why: In words: which signal, which exit code, which node.
        output: The end of what it printed.
        began: Whether it had come so far as to take jobs.
        final: Whether trying again would be useless: a limit was passed.
        blameless: Whether the job can't have caused it: a machine went away.
    """

    slot: int
    why: str
    output: str = ""
    began: bool = True
    final: bool = False
    blameless: bool = False


Event = Progressed | Finished | Died


@dataclass(frozen=True)
class Bench:
    """What every worker is told once.

    Attributes:
        root: Folder or URL of the results.
        cache: Folder for what can be recomputed.
        state: Folder of this machine for logs.
        level: Confidence level.
        fprs: False-positive rates.
        settings: How to run.
        term: Mark of this run: workers of an earlier one, which its runner's end may have outlived, write nothing more.
        inherit: Descriptor of the study's lock. Workers hold it too, so that no other runner starts while one of them
            is still at work.
    """

    root: str
    cache: Path
    state: Path
    level: float
    fprs: tuple[float, ...]
    settings: RunSettings = field(default_factory=RunSettings)
    term: str | None = None
    inherit: int | None = None


class Executor(ABC):
    """Slots for jobs. A slot takes one job at a time; workers are started when they are needed.

    Attributes:
        slots: How many.
    """

    slots: int

    @abstractmethod
    def submit(self, slot: int, job: Job) -> None:
        """Give a free slot a job."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Event]:
        """What has happened; waits for something to happen, but no longer than this."""

    @abstractmethod
    def kill(self, slot: int) -> None:
        """End the worker of a slot and its job, at once. No event tells of it."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""
