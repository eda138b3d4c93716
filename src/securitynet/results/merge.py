"""Merging the results of several studies, or of parts of one that ran in different places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from securitynet.records import Record
from securitynet.results import store, study_targets
from securitynet.results.redaction import clean_values
from securitynet.results.root import Root
from securitynet.results.store import parse_trial
from securitynet.results.study_targets import parse_study_target

AnyRecord = TypeVar("AnyRecord", bound=Record)

_TEXTS_OF_TARGETS = ("label", "training", "reason", "traceback", "notes", "codes", "environment")
_RANK = {"ok": 0, "failed": 1, "skipped": 2}


@dataclass
class Merged:
    """The outcome of merging results.

    Attributes:
        trials: Trials that were copied.
        targets: Target records that were copied.
        present: Files that were there already, with a status at least as good.
        conflicts: Ids of trials that two sources finished with different numbers; the first result stays.
        damaged: Path of an unreadable file, which is left out -> reason.
    """

    trials: int = 0
    targets: int = 0
    present: int = 0
    conflicts: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def merge_results(sources: Iterable[Root], into: Root, *, redact: bool = False) -> Merged:
    """Copy results into a root. A finished trial is preferred to a failed one, and that to a skipped one.

    Args:
        sources: In order of preference, where the same trial has the same status in several.
        into: Where results are copied to. Results that it holds already take precedence over all sources.
        redact: Whether to leave out arrays (scores of records, examples), and paths and names of users in texts.
    """
    merged = Merged()
    for source in sources:
        for path, _ in source.files(store.FOLDER, ".json"):
            _merge_trial(source, path, into, merged, redact)
        for path, _ in source.files(study_targets.FOLDER, ".json"):
            _merge_target(source, path, into, merged, redact)
    return merged


def _merge_trial(source: Root, path: str, into: Root, merged: Merged, redact: bool) -> None:
    try:
        text = source.read(path)
        given = parse_trial(text)
    except (ValueError, OSError) as error:
        merged.damaged[f"{source.name}/{path}"] = str(error)
        return
    try:
        present = parse_trial(into.read(path))
    except (FileNotFoundError, ValueError):
        present = None
    if present is not None and _RANK[present.status] <= _RANK[given.status]:
        merged.present += 1
        if present.status == given.status == "ok":
            ours = {m.name: (m.value, m.low, m.high) for m in present.measurements}
            theirs = {m.name: (m.value, m.low, m.high) for m in given.measurements}
            if any(ours[name] != theirs[name] for name in set(ours) & set(theirs)):
                merged.conflicts.append(given.id)
        return
    if redact:
        store.TrialStore(into).save(
            _clean(given, "reason", "traceback", "environment").model_copy(update={"arrays": ()})
        )
        merged.trials += 1
        return
    if given.arrays:  # first: with its record a trial is complete
        arrays = f"{path.removesuffix('.json')}.npz"
        try:
            into.write(arrays, source.read(arrays))
        except FileNotFoundError:
            merged.damaged[f"{source.name}/{arrays}"] = "it is missing"
            return
    into.write(path, text)
    merged.trials += 1


def _merge_target(source: Root, path: str, into: Root, merged: Merged, redact: bool) -> None:
    try:
        text = source.read(path)
        given = parse_study_target(text)
    except (ValueError, OSError) as error:
        merged.damaged[f"{source.name}/{path}"] = str(error)
        return
    try:
        present = parse_study_target(into.read(path))
    except (FileNotFoundError, ValueError):
        present = None
    if present is not None and _RANK[present.status] <= _RANK[given.status]:
        merged.present += 1
        return
    if redact:
        study_targets.StudyTargetStore(into).save(_clean(given, *_TEXTS_OF_TARGETS))
    else:
        into.write(path, text)
    merged.targets += 1


def _clean(record: AnyRecord, *fields: str) -> AnyRecord:
    """A record in which some fields hold no paths and names of users; its specification, and so its id, stays."""
    content = record.model_dump(mode="json")
    return type(record).model_validate({**content, **clean_values({name: content[name] for name in fields})})
