"""Looking at a study from outside: how far it is, and its index. While a runner is at work nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from securitynet.results.index import Index, Refreshed
from securitynet.results.merge import Merged
from securitynet.results.merge import merge as merge_roots
from securitynet.results.store import FOLDER, parse_trial
from securitynet.results.subjects import SubjectStore
from securitynet.studies.execution import lock as study_lock
from securitynet.studies.execution.run import Place, find_results, place_of
from securitynet.studies.execution.status import Status, read_status

Note = Callable[[str], None]


def look(place: Place) -> Status:
    """How far a study is: by what its runner wrote, or, where none has run, by its files.

    A runner that was killed can't say so; that nobody holds the lock tells it.
    """
    status = read_status(place.state)
    if status is None:
        return _by_files(place)
    if status.state in ("running", "stopping") and study_lock.holder(place.state) is None:
        status.state, status.running, status.left = "killed", [], None
    return status


def _by_files(place: Place) -> Status:
    found: Counter[str] = Counter()
    for path, _ in place.root.files(FOLDER, ".json"):
        try:
            found[parse_trial(place.root.read(path)).status] += 1
        except (ValueError, OSError):
            found["damaged"] += 1
    subjects = Counter(record.status for record in SubjectStore(place.root))
    return Status(
        name=place.root.name,
        state="not running",
        total=sum(found.values()),
        ok=found["ok"],
        failed=found["failed"],
        skipped=found["skipped"],
        subjects={"total": sum(subjects.values()), "opened": subjects["ok"], "failed": subjects["failed"]},
    )


@contextmanager
def open_index(place: Place, note: Note) -> Iterator[Index]:
    """The index of a study's results, brought up to date.

    Where nothing can be written beside the results, or a runner is at work and keeps the index itself, one in memory
    serves. Files that can't be read are named and left out.
    """
    busy = study_lock.holder(place.state) is not None
    here = place.index if "://" not in place.index and not busy and _writable(Path(place.index).parent) else None
    index = Index(place.index if "://" in place.index else (here or "sqlite://"), place.root)
    try:
        for path, why in index.refresh().damaged.items():
            note(f"{path} can't be read and is left out: {why}")
        yield index
    finally:
        index.close()


def reindex(place: Place, note: Note) -> Refreshed:
    """Rebuild the index from the files.

    Raises:
        StudyRuns: If a runner is at work: it keeps the index.
    """
    with study_lock.held(place.state, place.root, note):
        if "://" not in place.index:
            Path(place.index).unlink(missing_ok=True)  # it may be damaged itself
        index = Index(place.index, place.root)
        try:
            found = index.rebuild()
        finally:
            index.close()
    for path, why in found.damaged.items():
        note(f"{path} can't be read: {why}")
    return found


def merge(sources: Iterable[str], out: str, note: Note) -> Merged:
    """Merge results into a folder or URL.

    Raises:
        StudyRuns: If a runner is at work there.
    """
    place = place_of(out)
    with study_lock.held(place.state, place.root, note):
        found = merge_roots([find_results(source).root for source in sources], place.root)
        index = Index(place.index, place.root)
        try:
            index.refresh()
        finally:
            index.close()
    return found


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
