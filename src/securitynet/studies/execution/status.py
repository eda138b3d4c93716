"""The status of a study, which the runner writes once a second."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from securitynet.untrusted import read_stored

FILE = "status.json"


@dataclass
class Status:
    """The status of a study.

    Attributes:
        name: Name of the study.
        state: ``running``, ``stopping``, ``finished``, ``stopped``, or ``killed`` (its runner ended without a report).
        total: Number of trials; for targets that have not been opened yet, the expected number.
        ok: Number of successful trials.
        failed: Number of trials that failed, or whose target could not be opened.
        skipped: Number of trials that cannot be run.
        finished_now: Number of trials finished in this run.
        waiting: Number of pending trials.
        running: Running tasks: description, done, total.
        elapsed: Seconds since the runner started.
        rate: Trials per minute in this run.
        left: Estimated remaining seconds, if known.
        subjects: Numbers of assessed targets: ``total``, ``opened``, ``failed``.
        workers: Number of workers.
        other_version: Number of successful trials of another version of this package.
        failures: The most recent failures: (trial, reason).
    """

    name: str = ""
    state: str = "running"
    total: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    finished_now: int = 0
    waiting: int = 0
    running: list[dict[str, Any]] = field(default_factory=list)
    elapsed: float = 0.0
    rate: float | None = None
    left: float | None = None
    subjects: dict[str, int] = field(default_factory=dict)
    workers: int = 0
    other_version: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return asdict(self)


def read_status(state: Path) -> Status | None:
    """Read the status that the runner wrote last; None if there is none."""
    try:
        content = json.loads(read_stored(state / FILE))
        content["failures"] = [(name, reason) for name, reason in content.get("failures", [])]
        return Status(**content)
    except (OSError, ValueError, TypeError, AttributeError):  # AttributeError: no table
        return None


def describe_duration(seconds: float | None) -> str:
    """Describe a duration: ``3 h 20 min``, ``4 min``, ``12 s``."""
    if seconds is None:
        return "unknown"
    if seconds >= 86400:
        return f"{int(seconds // 86400)} d {int(seconds % 86400 // 3600)} h"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
