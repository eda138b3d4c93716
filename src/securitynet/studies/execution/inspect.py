"""Inspects a study from outside: its status and its index. Nothing is written while a runner is working."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from securitynet.records import TrialResult
from securitynet.results.index import Index, Refreshed
from securitynet.results.merge import Merged
from securitynet.results.merge import merge_results as merge_roots
from securitynet.results.store import FOLDER, TrialStore, parse_trial
from securitynet.results.study_targets import StudyTargetStore
from securitynet.studies.execution import lock as study_lock
from securitynet.studies.execution.lock import Note
from securitynet.studies.execution.run import StudyLocation, find_results, locate_results
from securitynet.studies.execution.status import Status, read_status


def inspect_study(location: StudyLocation, counts: Mapping[str, int] | None = None) -> Status:
    """Return the status of a study: as written by its runner or, without one, as counted from its files.

    A killed runner cannot report its end, so a running status without a holder of the lock counts as killed.

    Args:
        location: Where the study is.
        counts: Status of trials -> their number, if the caller has read them.
    """
    status = read_status(location.state)
    if status is None:
        return _count(location, _count_files(location) if counts is None else counts)
    if status.state in ("running", "stopping") and study_lock.find_holder(location.state) is None:
        status.state, status.running, status.left = "killed", [], None
    return status


def _count_files(location: StudyLocation) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path, _ in location.root.files(FOLDER, ".json"):
        try:
            counts[parse_trial(location.root.read(path)).status] += 1
        except (ValueError, OSError):
            counts["damaged"] += 1
    return counts


def _count(location: StudyLocation, counts: Mapping[str, int]) -> Status:
    subjects = Counter(record.status for record in StudyTargetStore(location.root))
    return Status(
        name=location.root.name,
        state="not running",
        total=sum(counts.values()),
        ok=counts.get("ok", 0),
        failed=counts.get("failed", 0),
        skipped=counts.get("skipped", 0),
        subjects={"total": sum(subjects.values()), "opened": subjects["ok"], "failed": subjects["failed"]},
    )


@contextmanager
def open_index(location: StudyLocation, note: Note) -> Iterator[Index]:
    """Open the up-to-date index of a study's results.

    If the folder cannot be written, or a runner is working and maintains the index itself, an index in memory is used.
    Unreadable files are reported and left out.
    """
    busy = study_lock.find_holder(location.state) is not None
    usable = "://" in location.index or (not busy and _is_writable(Path(location.index).parent))
    index = Index(location.index if usable else "sqlite://", location.root)
    try:
        for path, why in index.refresh().damaged.items():
            note(f"{path} cannot be read and is left out: {why}")
        yield index
    finally:
        index.close()


def read_trials(location: StudyLocation, note: Note) -> Iterator[TrialResult]:
    """Read the trials of a study in the order of their ids: from its index if it has one, which is faster.

    Args:
        location: Where the study is.
        note: Called with a message for each file that cannot be read, which is left out.
    """
    if "://" not in location.index and not Path(location.index).exists():
        yield from TrialStore(location.root)  # which logs them
        return
    with open_index(location, note) as index:
        yield from index.trials()


def rebuild_index(location: StudyLocation, note: Note) -> Refreshed:
    """Rebuild the index from the files.

    Raises:
        StudyRuns: If a runner is working, because it maintains the index.
    """
    with study_lock.hold_study_lock(location.state, location.root, note):
        if "://" not in location.index:
            Path(location.index).unlink(missing_ok=True)  # the old index may be damaged
        index = Index(location.index, location.root)
        try:
            refreshed = index.rebuild()
        finally:
            index.close()
    for path, why in refreshed.damaged.items():
        note(f"{path} can't be read: {why}")
    return refreshed


def merge_folders(sources: Iterable[str], out: str, note: Note, *, redact: bool = False) -> Merged:
    """Merge results into a folder or URL.

    Args:
        sources: Folders or URLs of results.
        out: Folder or URL to merge into.
        note: Called with messages for the user.
        redact: Whether to leave out arrays, and paths and names of users in texts.

    Raises:
        StudyRuns: If a runner is working there.
    """
    location = locate_results(out)
    with study_lock.hold_study_lock(location.state, location.root, note):
        merged = merge_roots([find_results(source).root for source in sources], location.root, redact=redact)
        index = Index(location.index, location.root)
        try:
            index.refresh()
        finally:
            index.close()
    return merged


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
