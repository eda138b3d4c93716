"""Which scheme reads a file or folder, determined from its content and, only if that is inconclusive, from its name."""

from __future__ import annotations

import fnmatch
import zipfile
from pathlib import Path

from securitynet.errors import RefusedFile
from securitynet.models.sources.schemes import SCHEMES, Scheme
from securitynet.untrusted import open_regular

_HEAD = 512


def recognise(path: Path) -> Scheme | None:
    """The scheme that declares such a file or folder; None if there is none. Only names and first bytes are read."""
    schemes = SCHEMES.schemes
    if path.is_dir():
        names = [file.name for file in path.iterdir()]
        return next((scheme for scheme in schemes if scheme.folders and _has_members(scheme, names)), None)
    try:
        with open_regular(path) as stream:
            head = stream.read(_HEAD)
        names = zipfile.ZipFile(path).namelist() if head.startswith(b"PK\x03\x04") else []
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    for scheme in schemes:
        if any(head[offset : offset + len(mark)] == mark for offset, mark in scheme.magic):
            return scheme
    for scheme in schemes:
        if names and not scheme.folders and _has_members(scheme, names):
            return scheme
    suffix = path.suffix.lower()
    return next((scheme for scheme in schemes if suffix in scheme.suffixes), None)


def find_other_kind(path: Path, stated: Scheme) -> Scheme | None:
    """The scheme whose first bytes a file has, where it has not those of the stated one; None if there is none."""
    try:
        with open_regular(path) as stream:
            head = stream.read(_HEAD)
    except (OSError, RefusedFile):
        return None  # opening it as what is stated says more
    marked = [
        scheme
        for scheme in SCHEMES.schemes
        if any(head[offset : offset + len(mark)] == mark for offset, mark in scheme.magic)
    ]
    return None if stated in marked or not marked else marked[0]


def _has_members(scheme: Scheme, names: list[str]) -> bool:
    return bool(scheme.members) and all(
        any(fnmatch.fnmatch(name, pattern) for name in names) for pattern in scheme.members
    )
