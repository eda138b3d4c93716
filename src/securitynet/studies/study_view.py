"""Looking at a study from outside: how far it is. Nothing is written."""

from __future__ import annotations

from collections import Counter

from securitynet.results.store import FOLDER, parse_trial
from securitynet.results.subjects import SubjectStore
from securitynet.studies import study_lock
from securitynet.studies.study_run import Place
from securitynet.studies.study_status import Status, read_status


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
