"""Folders of studies: what is in them, and their reports."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from securitynet.studies.execution.lock import find_holder
from securitynet.studies.execution.status import describe_duration, read_status

_TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL)
_SUFFIX = " – SecurityNet study"


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes:
        running: Whether a runner is working on it.
        done: Trials that have a result: successful, failed or skipped.
        total: All trials.
        words: What to say about it.
    """

    running: bool
    done: int
    total: int
    words: str


@dataclass(frozen=True)
class Study:
    """A folder with a study's results.

    Attributes:
        number: By which the page knows it; a path never comes from a visitor.
        name: The study's own title, or the folder's name.
        folder: Where.
        report: ``report.html`` in it; None if there is none yet.
        written: When that was written, UTC.
        progress: How far a run of it is; None if nothing has been run.
    """

    number: int
    name: str
    folder: Path
    report: Path | None
    written: str
    progress: Progress | None = None


def list_studies(roots: tuple[Path, ...]) -> list[Study]:
    """The studies in some folders: a folder itself, or those directly in it."""
    folders: dict[Path, None] = {}
    for root in roots:
        inside = sorted(path for path in root.iterdir() if _is_study(path)) if root.is_dir() else []
        folders.update(dict.fromkeys([root] if _is_study(root) else inside))
    return [_study(number, folder) for number, folder in enumerate(folders, start=1)]


def _is_study(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "report.html").is_file() or (folder / "trials").is_dir())


def _study(number: int, folder: Path) -> Study:
    report = folder / "report.html"
    if not report.is_file():
        return Study(number, folder.name, folder, None, "", _read_progress(folder))
    with report.open("rb") as stream:
        title = _TITLE.search(stream.read(4096))

    name = html.unescape(title[1].decode("utf-8", "replace")).strip().removesuffix(_SUFFIX) if title else folder.name
    when = datetime.fromtimestamp(report.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d %H:%M")
    return Study(number, name, folder, report, when, _read_progress(folder))


def _read_progress(folder: Path) -> Progress | None:
    """What the runner of a study wrote last, if it is on this machine."""
    status = read_status(folder / "run")
    if status is None:
        return None
    running = status.state in ("running", "stopping") and find_holder(folder / "run") is not None
    done = status.ok + status.failed + status.skipped
    words = [f"{done:,} of {status.total:,} trials"]
    words += [f"{status.failed:,} failed"] if status.failed else []
    if running:
        words += [f"about {describe_duration(status.left)} left"] if status.left is not None else []
    elif done < status.total:
        words.append("not running")
    return Progress(running, done, status.total, " · ".join(words))
