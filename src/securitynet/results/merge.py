"""Merging the results of several studies, or of parts of one that ran in different places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from securitynet.results import store, subjects
from securitynet.results.root import Root
from securitynet.results.store import parse_trial
from securitynet.results.subjects import parse_study_target

_RANK = {"ok": 0, "failed": 1, "skipped": 2}


@dataclass
class Merged:
    """What merging did.

    Attributes:
        trials: Trials that were taken over.
        subjects: Subject files that were taken over.
        present: Files that were there already, as good or better.
        conflicts: Ids of trials that two sources finished with different numbers; the first is kept.
        damaged: Path of a file that can't be read -> why; it is left out.
    """

    trials: int = 0
    subjects: int = 0
    present: int = 0
    conflicts: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def merge(sources: Iterable[Root], into: Root) -> Merged:
    """Copy results into a root. What finished is preferred to what failed, and that to what was skipped.

    Args:
        sources: In the order of preference among equals.
        into: What is there already comes before all of them.
    """
    found = Merged()
    for source in sources:
        for path, _ in source.files(store.FOLDER, ".json"):
            _merge_trial(source, path, into, found)
        for path, _ in source.files(subjects.FOLDER, ".json"):
            _merge_subject(source, path, into, found)
    return found


def _merge_trial(source: Root, path: str, into: Root, found: Merged) -> None:
    try:
        text = source.read(path)
        given = parse_trial(text)
    except (ValueError, OSError) as error:
        found.damaged[f"{source.name}/{path}"] = str(error)
        return
    try:
        present = parse_trial(into.read(path))
    except (FileNotFoundError, ValueError):
        present = None
    if present is not None and _RANK[present.status] <= _RANK[given.status]:
        found.present += 1
        if present.status == given.status == "ok":
            ours = {m.name: (m.value, m.low, m.high) for m in present.measurements}
            theirs = {m.name: (m.value, m.low, m.high) for m in given.measurements}
            if any(ours[name] != theirs[name] for name in set(ours) & set(theirs)):
                found.conflicts.append(given.id)
        return
    if given.arrays:  # first: with its record a trial is complete
        arrays = f"{path.removesuffix('.json')}.npz"
        try:
            into.write(arrays, source.read(arrays))
        except FileNotFoundError:
            found.damaged[f"{source.name}/{arrays}"] = "it is missing"
            return
    into.write(path, text)
    found.trials += 1


def _merge_subject(source: Root, path: str, into: Root, found: Merged) -> None:
    try:
        text = source.read(path)
        given = parse_study_target(text)
    except (ValueError, OSError) as error:
        found.damaged[f"{source.name}/{path}"] = str(error)
        return
    try:
        present = parse_study_target(into.read(path))
    except (FileNotFoundError, ValueError):
        present = None
    if present is not None and _RANK[present.status] <= _RANK[given.status]:
        found.present += 1
        return
    into.write(path, text)
    found.subjects += 1
