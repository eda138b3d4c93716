"""Digests of the files and folders that a study names, computed once as long as these do not change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from securitynet.files import file_checksum, write_json
from securitynet.models.sources.versions import digest_source_files
from securitynet.untrusted import read_stored


class FileDigests:
    """Digests by path, stored in a file of the cache.

    The digest of a file is the SHA-256 of its content; it is computed again if size, modification time or inode differ.
    That of a Python file covers the files beside it that it imports as well.
    The digest of a folder covers the names and sizes in it: reading a large dataset for a plan would take too long, and
    its content is read when it is loaded.

    Args:
        cache: Folder of the cache; None stores nothing.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._path = None if cache is None else cache / "checksums.json"
        self._known: dict[str, list[str]] = {}
        self._folders: dict[str, str] = {}
        self._changed = False
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                self._known = dict(json.loads(read_stored(self._path)))

    def compute(self, path: Path) -> str | None:
        """Return the digest of a file or folder; None if it does not exist."""
        try:
            status = path.stat()
        except OSError:
            return None
        name = str(path.absolute())
        if path.is_dir():
            if name not in self._folders:
                self._folders[name] = _digest_folder(path)
            return self._folders[name]
        if path.suffix == ".py":
            return digest_source_files(path)
        version = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
        known = self._known.get(name)
        if known is None or known[0] != version:
            known = self._known[name] = [version, file_checksum(path)]
            self._changed = True
        return known[1]

    def save(self) -> None:
        """Write the digests to the cache; a cache that cannot be written is not an error."""
        if self._changed and self._path is not None:
            with contextlib.suppress(OSError):
                write_json(self._path, self._known)
            self._changed = False


def _digest_folder(path: Path) -> str:
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            with contextlib.suppress(OSError):
                digest.update(f"{file.relative_to(path)}:{file.stat().st_size}\n".encode())
    return digest.hexdigest()
