"""Options of one run of a study, and what it writes beside the trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securitynet.errors import SecurityNetError
from securitynet.results.index import Index
from securitynet.results.root import Root
from securitynet.studies.definition.file import RunSettings
from securitynet.studies.definition.plan import StudyPlan
from securitynet.studies.execution.lock import Note


class StudyStopped(SecurityNetError):
    """A study can't go on; what is finished is kept."""


@dataclass
class RunOptions:
    """What one run of a study is to do.

    Attributes:
        settings: How it is run.
        retry_failed: Whether trials that failed, and targets that could not be opened, are tried again.
        refresh: Whether trials that another version of this package made are run again.
        cache: Folder for what can be recomputed.
        state: Folder of this machine for the lock, logs and status.
        index: URL or path of the index.
    """

    settings: RunSettings
    cache: Path
    state: Path
    index: str
    retry_failed: bool = False
    refresh: bool = False


def make_storage_error(reason: str) -> StudyStopped:
    """The error for a place that can't be written."""
    return StudyStopped(
        f"The study was stopped, because nothing can be written: {reason}.",
        hint="What is finished is kept. Free some space or permit writing, and run it again.",
    )


def refresh_index(index: Index, note: Note) -> None:
    """Bring the index up to date; files that can't be read are named, set aside, and made again."""
    for path, why in index.refresh().damaged.items():
        aside = index.root.set_aside(path)
        note(f"{path} can't be read ({why}); it is kept as {aside}, and its trial will run again.")


def write_study(root: Root, plan: StudyPlan) -> None:
    """Keep the study file with its results, so that they can be understood, and run again, on their own."""
    text = plan.text.encode("utf-8")
    if not text:
        return
    try:
        if root.read("study.toml") == text:
            return
    except FileNotFoundError:
        pass
    root.write("study.toml", text)
