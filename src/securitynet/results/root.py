"""Where results lie: a folder of this machine, or one that fsspec reaches (``s3://``, ``gs://``), behind one interface.

Each file is whole or absent. On a folder that is a temporary name and ``os.replace``; object stores put whole objects.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.files import atomic_write

ASIDE = "set-aside"
"""Folder for files that could not be read."""

_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "memory", "oci", "oss"}
"""File systems on which a put shows the whole object or none."""


class Root(ABC):
    """Files by paths relative to one place, with ``/`` between their parts.

    Attributes:
        name: As the user wrote it.
        folder: The place, if it is a folder of this machine; else None.
    """

    name: str
    folder: Path | None = None

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of a file. Raises ``FileNotFoundError`` if there is none."""

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Write a whole file, or nothing."""

    @abstractmethod
    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        """(path, stamp) of the files in a folder and in its folders, by ending.

        A stamp changes whenever a file is replaced. It is compared for equality and never read as a time, so that a
        clock that jumps does no harm.
        """

    @abstractmethod
    def move(self, path: str, to: str) -> None:
        """Give a file another name."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file; nothing happens if there is none."""

    def set_aside(self, path: str) -> str:
        """Move a file that can't be read out of the way, and keep it; returns its new path."""
        flat = path.replace("/", "-")
        number, to = 0, f"{ASIDE}/{flat}"
        while self.exists(to):
            number, to = number + 1, f"{ASIDE}/{flat}.{number + 1}"
        self.move(path, to)
        return to


class FolderRoot(Root):
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)

    def _at(self, path: str) -> Path:
        assert self.folder is not None
        return self.folder / path

    def read(self, path: str) -> bytes:
        """See `Root.read`."""
        return self._at(path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """See `Root.write`."""
        with atomic_write(self._at(path)) as stream:
            stream.write(content)

    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        """See `Root.files`."""
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            try:
                entries = sorted(os.scandir(self._at(current)), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                path = f"{current}/{entry.name}"
                if entry.name.startswith("."):  # being written, or left by a process that was killed meanwhile
                    continue
                if entry.is_dir():
                    waiting.append(path)
                elif entry.name.endswith(suffix):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue
                    yield path, f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"

    def move(self, path: str, to: str) -> None:
        """See `Root.move`."""
        self._at(to).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._at(path), self._at(to))

    def exists(self, path: str) -> bool:
        """See `Root.exists`."""
        return self._at(path).exists()

    def remove(self, path: str) -> None:
        """See `Root.remove`."""
        self._at(path).unlink(missing_ok=True)

    def remove_leftovers(self, folder: str) -> int:
        """Delete what killed processes left half-written; how many files. Only for who knows that nobody writes."""
        found = 0
        for leftover in self._at(folder).rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
            found += 1
        return found


class RemoteRoot(Root):
    """A folder that fsspec reaches."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.name = url.rstrip("/")
        try:
            self._system, path = fsspec.core.url_to_fs(self.name)
        except ImportError as error:
            protocol = url.partition("://")[0]
            package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}.get(protocol, protocol)
            raise MissingExtra(package, "remote", f"{protocol}:// as a place for results") from error
        except ValueError as error:
            raise ConfigurationError(f"{url} is no place for results: {error}.") from error
        self._path = str(path).rstrip("/")
        protocols = self._system.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._whole = bool(names & _WHOLE_OBJECTS)

    def _at(self, path: str) -> str:
        return f"{self._path}/{path}"

    def read(self, path: str) -> bytes:
        """See `Root.read`."""
        return bytes(self._system.cat_file(self._at(path)))

    def write(self, path: str, content: bytes) -> None:
        """See `Root.write`."""
        at = self._at(path)
        if self._whole:
            self._system.pipe_file(at, content)
            return
        folder, _, name = at.rpartition("/")
        self._system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{os.urandom(6).hex()}.tmp"
        self._system.pipe_file(temporary, content)
        self._system.mv(temporary, at)

    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        """See `Root.files`."""
        self._system.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self._system.find(self._at(folder), detail=True)
        except FileNotFoundError:
            return
        for path in sorted(found):
            name = path.rpartition("/")[2]
            if name.endswith(suffix) and not name.startswith("."):
                info = found[path]
                marks = [info.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified", "created", "ino")]
                relative = path[path.index(f"{self._path}/") + len(self._path) + 1 :]
                yield relative, ":".join(str(mark) for mark in marks if mark is not None)

    def move(self, path: str, to: str) -> None:
        """See `Root.move`."""
        folder = self._at(to).rpartition("/")[0]
        self._system.makedirs(folder, exist_ok=True)
        self._system.mv(self._at(path), self._at(to))

    def exists(self, path: str) -> bool:
        """See `Root.exists`."""
        return bool(self._system.exists(self._at(path)))

    def remove(self, path: str) -> None:
        """See `Root.remove`."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._at(path))


def open_root(place: str | Path | Root) -> Root:
    """The root at a folder or a URL.

    Raises:
        MissingExtra: If a package is needed to reach it.
        ConfigurationError: If it is no place at all.
    """
    if isinstance(place, Root):
        return place
    if isinstance(place, str) and "://" in place:
        return RemoteRoot(place)
    return FolderRoot(Path(place))
