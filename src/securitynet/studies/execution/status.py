"""How far a study is: what the runner writes once a second, and what anybody can read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "status.json"


@dataclass
class Status:
    """How far a study is.

    Attributes:
        name: Of the study.
        state: ``running``, ``stopping``, ``finished``, ``stopped``, or ``killed``: it was running, and is no more.
        total: Trials in all, as far as is known; subjects that are not opened yet count as expected.
        ok: Trials that are there and ok.
        failed: Trials that failed, or whose target could not be opened.
        skipped: Trials that can't be run.
        finished_now: Trials that were finished in this run.
        waiting: Trials still to be run.
        running: What runs now: words, done, total.
        elapsed: Seconds since the runner started.
        rate: Trials a minute in this run.
        left: Seconds that are left, if that can be told.
        subjects: Of them: ``total``, ``opened``, ``failed``.
        workers: How many.
        other_version: Of the ok trials, those that another version of this package made.
        failures: The last reasons: (trial, reason).
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
        """As JSON types."""
        return asdict(self)


def read_status(state: Path) -> Status | None:
    """What the runner wrote last; None if there is nothing readable."""
    try:
        content = json.loads((state / FILE).read_text(encoding="utf-8"))
        content["failures"] = [(name, reason) for name, reason in content.get("failures", [])]
        return Status(**content)
    except (OSError, ValueError, TypeError):
        return None


def describe_duration(seconds: float | None) -> str:
    """A duration for people: ``3 h 20 min``, ``4 min``, ``12 s``."""
    if seconds is None:
        return "unknown"
    if seconds >= 86400:
        return f"{int(seconds // 86400)} d {int(seconds % 86400 // 3600)} h"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
