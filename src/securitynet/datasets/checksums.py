"""SHA-256 of files, cached for as long as a file's size, times and inode do not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from securitynet.datasets.store import explain_unwritable_cache
from securitynet.errors import DatasetError
from securitynet.files import file_checksum, make_printable, write_json
from securitynet.untrusted import read_stored

_VERSION = 1
# A file changed twice within the clock's resolution keeps its times, so files this recent are hashed again (as in git).
_RACY_NANOSECONDS = 2_000_000_000


class Checksums:
    """Checksums of the files under one folder, cached on disk.

    Hashing 200,000 photographs takes many seconds; reading their directory entries takes two.

    Args:
        folder: Folder of the caches.
        root: The folder whose files are hashed; each has its own cache.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._memory = folder / f"{place}.json"

    def of(self, paths: Sequence[Path]) -> list[str]:
        """Compute the SHA-256 of each file, in hexadecimal.

        Raises:
            DatasetError: If a file cannot be read.
        """
        known = self._recall()
        now = time.time_ns()
        marks = [_mark(path) for path in paths]
        entries: dict[str, list[str | int]] = {}
        stale: list[tuple[Path, list[int]]] = []
        for path, mark in zip(paths, marks, strict=True):
            remembered = known.get(_key(path))
            if remembered is not None and remembered[1:5] == mark and remembered[5] == 1:
                entries[_key(path)] = remembered
            else:
                stale.append((path, mark))
        if stale:
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                fresh = list(pool.map(_checksum, [path for path, _ in stale]))
            for (path, mark), checksum in zip(stale, fresh, strict=True):
                settled = int(now - max(mark[1], mark[2]) > _RACY_NANOSECONDS)
                entries[_key(path)] = [checksum, *mark, settled]
            self._remember({**known, **entries})
        return [str(entries[_key(path)][0]) for path in paths]

    def _recall(self) -> dict[str, list[str | int]]:
        try:
            value = json.loads(read_stored(self._memory))
            if value["version"] == _VERSION and all(len(entry) == 6 for entry in value["files"].values()):
                return dict(value["files"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # No cache, or a damaged one: everything is hashed again, which is always correct.
            return {}
        return {}

    def _remember(self, files: dict[str, list[str | int]]) -> None:
        try:
            write_json(self._memory, {"version": _VERSION, "files": files})
        except OSError as error:
            raise explain_unwritable_cache(self._memory.parent, error) from error


def _key(path: Path) -> str:
    """The path in a form that JSON can hold. Paths contain no NUL, so paths that are not UTF-8 cannot collide."""
    text = os.fspath(path)
    return text if make_printable(text) == text else f"\0{os.fsencode(path).hex()}"


def _mark(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _checksum(path: Path) -> str:
    try:
        return file_checksum(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
