"""Files that programs and operating systems leave beside images: thumbnails, notebook checkpoints, folder indices."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_NAMES = frozenset(
    (
        "__macosx",
        "__pycache__",
        "lost+found",
        "system volume information",
        "recycler",
        "desktop.ini",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
    )
)
# Hidden files, Synology and QNAP (@eaDir, #recycle), Windows ($RECYCLE.BIN), locks of office programs (~$list.xlsx).
_BEGINNINGS = (".", "@ea", "@tmp", "@recycle", "@__", "#recycle", "#snapshot", "$recycle", "~$", "syno@")


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is neither an image nor a class."""
    lowered = name.lower()
    return lowered in _NAMES or lowered.startswith(_BEGINNINGS)


def count_files(path: Path) -> int:
    """Files under ``path``, itself included, without following links."""
    if not path.is_dir() or path.is_symlink():
        return 1
    return sum(len(files) for _, _, files in os.walk(path))


def describe_clutter(counts: Counter[str]) -> str:
    """A sentence on the files that were skipped, from name of the clutter -> number of files."""
    total = sum(counts.values())
    names = sorted(counts)
    words = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{total} {'file was' if total == 1 else 'files were'} skipped that programs leave beside images ({words})."
