"""Options of one run of a study, and the files that it writes besides the trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securitynet.errors import SecurityNetError
from securitynet.memory import read_available_memory
from securitynet.results.index import Index
from securitynet.results.root import Root
from securitynet.studies.definition.file import RunSettings
from securitynet.studies.definition.plan import StudyPlan
from securitynet.studies.execution.lock import Note
from securitynet.studies.execution.scheduler import MOST_MEMORY


class StudyStopped(SecurityNetError):
    """A study cannot continue; finished trials are kept."""


@dataclass
class RunOptions:
    """Options of one run of a study.

    Attributes:
        settings: Workers and limits.
        retry_failed: Whether to retry failed trials, and targets that could not be opened.
        refresh: Whether to run trials of other versions of this package again.
        cache: Folder for what can be recomputed.
        state: Folder on this machine for the lock, logs and status.
        index: URL or path of the index.
    """

    settings: RunSettings
    cache: Path
    state: Path
    index: str
    retry_failed: bool = False
    refresh: bool = False


def make_storage_error(reason: str) -> StudyStopped:
    """Create the error for a location that cannot be written."""
    return StudyStopped(
        f"The study was stopped, because nothing can be written: {reason}.",
        hint="Finished trials are kept. Free some space or permit writing, and run the study again.",
    )


def refresh_index(index: Index, note: Note) -> None:
    """Update the index; unreadable files are reported and renamed, and their trials will run again."""
    for path, why in index.refresh().damaged.items():
        aside = index.root.set_aside(path)
        note(f"{path} can't be read ({why}); it is kept as {aside}, and its trial will run again.")


def write_study(root: Root, plan: StudyPlan) -> None:
    """Store the study file with its results, so that the results can be understood and reproduced on their own."""
    text = plan.text.encode("utf-8")
    if not text:
        return
    try:
        if root.read("study.toml") == text:
            return
    except FileNotFoundError:
        pass
    root.write("study.toml", text)


def bound_memory(settings: RunSettings) -> int:
    """Return the bytes that the small targets which a worker keeps open may take: an eighth of what it may have.

    Args:
        settings: The number of workers, and their limit.
    """
    limit, available = settings.memory_limit, read_available_memory()
    bounds = [] if limit is None else [int(limit * 2**30)]
    bounds += [] if available is None else [available // (settings.workers or 1)]
    return min([MOST_MEMORY, *(bound // 8 for bound in bounds)])
