"""The marker of a complete study, which makes it fast to see that nothing is left to do.

A complete study is often run again to make sure. Planning it imports every method with all its dependencies. Comparing
a digest of the study, of this package and of the result files suffices to see that nothing is left to do, and needs no
torch. The marker contains digests only; the status is in ``status.json``.
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

from securitynet.files import file_checksum, hash_stably, write_json
from securitynet.results import store, study_targets
from securitynet.results.root import Root
from securitynet.studies.definition.file import StudyConfig
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution import status as study_status
from securitynet.studies.execution.status import Status
from securitynet.untrusted import read_stored
from securitynet.version import __version__

FILE = "nothing-left.json"


def read(state: Path, digest: str) -> Status | None:
    """Return the final status of the last run, if it left nothing to do and nothing has changed since.

    Args:
        state: Folder on this machine for lock, logs and status.
        digest: Current digest; see `compute_digest`.
    """
    try:
        marker = json.loads(read_stored(state / FILE))
        # The status may be that of a later run that was stopped; the marker does not refer to that one.
        if marker != {"digest": digest, "status": file_checksum(state / study_status.FILE)}:
            return None
    except (OSError, ValueError):
        return None
    status = study_status.read_status(state)
    return None if status is None else replace(status, finished_now=0)


def write_marker(state: Path, digest: str) -> None:
    """Write the marker; a folder that cannot be written is not an error."""
    with contextlib.suppress(OSError):
        write_json(state / FILE, {"digest": digest, "status": file_checksum(state / study_status.FILE)})


def compute_digest(study: StudyConfig, targets: Iterable[TargetPlan], root: Root, options: Mapping[str, Any]) -> str:
    """Compute a digest of everything that determines whether something is left to do.

    Args:
        study: Content of the study file.
        targets: Its targets.
        root: Root of the results.
        options: Options of the run, as JSON types.
    """
    results = hashlib.sha256()
    for folder in (store.FOLDER, study_targets.FOLDER):
        for path, version in sorted(root.files(folder, ".json")):
            results.update(f"{path}={version}\n".encode())
    return hash_stably(
        {
            "study": study.model_dump(mode="json", exclude={"run", "out"}),
            "targets": [[target.key, target.obstacle, sorted(target.tags)] for target in targets],
            "results": results.hexdigest(),
            "code": _digest_code(),
            "options": options,
        }
    )


def _digest_code() -> str:
    """Compute a digest of the names, sizes and times of this package's files and of the installed plug-ins."""
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
