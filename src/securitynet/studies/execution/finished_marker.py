"""A memo of a run that left nothing to do: if nothing has changed since, there is nothing to plan either.

A study that is complete is often run again, to be sure. Planning it means importing every method with all that it
needs; comparing digests of the study file, of this package and of the results' stamps is enough to see that it would
find nothing. No torch is needed for that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from securitynet.files import stable_hash, write_json
from securitynet.results import store, subjects
from securitynet.results.root import Root
from securitynet.studies.definition.file import StudyConfig
from securitynet.studies.definition.targets import SubjectPlan
from securitynet.studies.execution.status import Status
from securitynet.version import __version__

FILE = "nothing-left.json"


def fingerprint(study: StudyConfig, declared: Iterable[SubjectPlan], root: Root, **options: Any) -> str:
    """Digest of everything that decides whether something is left to do.

    Args:
        study: As the file says.
        declared: Its targets.
        root: Where the results are.
        options: Of the run, as JSON types.
    """
    stamps = hashlib.sha256()
    for folder in (store.FOLDER, subjects.FOLDER):
        for path, stamp in sorted(root.files(folder, ".json")):
            stamps.update(f"{path}={stamp}\n".encode())
    return stable_hash(
        {
            "study": study.model_dump(mode="json", exclude={"run", "out"}),
            "targets": [[subject.key, subject.obstacle, sorted(subject.tags)] for subject in declared],
            "results": stamps.hexdigest(),
            "code": _code(),
            "options": options,
        }
    )


def recall(state: Path, mark: str) -> Status | None:
    """How the last run ended, if it left nothing to do and nothing has changed since."""
    try:
        content = json.loads((state / FILE).read_text(encoding="utf-8"))
        if content.pop("mark") != mark:
            return None
        content["failures"] = []
        return Status(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep(state: Path, mark: str, status: Status) -> None:
    """Remember that nothing is left; a folder that can't be written is no error."""
    with contextlib.suppress(OSError):
        write_json(state / FILE, {**status.to_json(), "mark": mark, "finished_now": 0})


def _code() -> str:
    """Digest of this package's files and of the plug-ins that are installed, by names, sizes and times."""
    digest = hashlib.sha256(__version__.encode())
    for folder, folders, names in os.walk(Path(__file__).parents[2]):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                status = (Path(folder) / name).stat()
                digest.update(f"{folder}/{name}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    for group in ("securitynet.attacks", "securitynet.detectors", "securitynet.defenses"):
        for point in importlib.metadata.entry_points(group=group):
            release = point.dist.version if point.dist else ""
            digest.update(f"{group}:{point.name}={point.value}@{release}\n".encode())
    return digest.hexdigest()
