"""The marker of a run that left nothing to do: if nothing has changed since, there is nothing to plan either.

A study that is complete is often run again, to be sure. Planning it means importing every method with all that it
needs. Comparing a digest of the study, of this package and of the versions of the result files is enough to see that
nothing would be found to do, and needs no torch. The marker holds digests only; what the run came to is in
``status.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from securitynet.files import file_checksum, stable_hash, write_json
from securitynet.results import store, subjects
from securitynet.results.root import Root
from securitynet.studies.definition.file import StudyConfig
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution import status as study_status
from securitynet.studies.execution.status import Status
from securitynet.version import __version__

FILE = "nothing-left.json"


def read(state: Path, digest: str) -> Status | None:
    """How the last run ended, if it left nothing to do and nothing has changed since.

    Args:
        state: Folder of this machine for lock, logs and status.
        digest: See `compute_digest`; as it is now.
    """
    try:
        marker = json.loads((state / FILE).read_text(encoding="utf-8"))
        # The status may be that of a later run, which was stopped: then it is not what the marker stands for.
        if marker != {"digest": digest, "status": file_checksum(state / study_status.FILE)}:
            return None
    except (OSError, ValueError):
        return None
    status = study_status.read_status(state)
    return None if status is None else replace(status, finished_now=0, failures=[])


def write(state: Path, digest: str) -> None:
    """Note that nothing is left; a folder that can't be written is no error."""
    with contextlib.suppress(OSError):
        write_json(state / FILE, {"digest": digest, "status": file_checksum(state / study_status.FILE)})


def compute_digest(study: StudyConfig, targets: Iterable[TargetPlan], root: Root, options: Mapping[str, Any]) -> str:
    """Digest of everything that decides whether something is left to do.

    Args:
        study: As the file says.
        targets: Its targets.
        root: Where the results are.
        options: Of the run, as JSON types.
    """
    results = hashlib.sha256()
    for folder in (store.FOLDER, subjects.FOLDER):
        for path, version in sorted(root.files(folder, ".json")):
            results.update(f"{path}={version}\n".encode())
    return stable_hash(
        {
            "study": study.model_dump(mode="json", exclude={"run", "out"}),
            "targets": [[target.key, target.obstacle, sorted(target.tags)] for target in targets],
            "results": results.hexdigest(),
            "code": _digest_code(),
            "options": options,
        }
    )


def _digest_code() -> str:
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
