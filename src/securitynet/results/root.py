"""Where results are stored: a local folder, or one that fsspec reaches (``s3://``, ``gs://``), behind one interface.

Each file is whole or absent: in a local folder by ``os.replace``, in an object store because objects are put whole.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import override

from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.files import write_atomically
from securitynet.untrusted import MAX_TEXT, open_regular, read_bytes

ASIDE = "set-aside"
"""Folder for files that could not be read."""

_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "memory", "oci", "oss"}
"""File systems on which a write becomes visible as a whole."""


class Root(ABC):
    """Files under one folder, by relative paths with ``/`` between their parts.

    Attributes:
        name: The folder or URL, as the user wrote it.
        folder: Its path, if it is local; else None.
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
    def create(self, path: str, content: bytes) -> bool:
        """Write a whole file only if there is none of that name; of several that try at once, one succeeds.

        Returns:
            Whether this call wrote it.
        """

    @abstractmethod
    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        """(path, version) of the files with a suffix in a folder and its sub-folders.

        The version changes whenever a file is replaced. It is only compared for equality, never read as a time, so that
        a clock that jumps does no harm.
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
        """Move an unreadable file to the folder `ASIDE`; returns its new path."""
        flat = path.replace("/", "-")
        number, to = 0, f"{ASIDE}/{flat}"
        while self.exists(to):
            number, to = number + 1, f"{ASIDE}/{flat}.{number + 1}"
        self.move(path, to)
        return to


class FolderRoot(Root):
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)

    def _at(self, path: str) -> Path:
        assert self.folder is not None
        return self.folder / path

    @override
    def read(self, path: str) -> bytes:
        place = f"{self.folder}/{path}"
        if path.endswith(".json"):
            return read_bytes(place, MAX_TEXT)
        with open_regular(place) as stream:
            return stream.read()

    @override
    def write(self, path: str, content: bytes) -> None:
        with write_atomically(self._at(path)) as stream:
            stream.write(content)

    @override
    def create(self, path: str, content: bytes) -> bool:
        at = self._at(path)
        at.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            at.unlink(missing_ok=True)
            raise
        return True

    @override
    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
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
                if entry.is_dir(follow_symlinks=False):  # links could lead back, in as many ways as there are links
                    waiting.append(path)
                elif entry.name.endswith(suffix):
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue
                    except OSError as error:  # a link to itself: whoever reads it learns why it cannot be read
                        yield path, str(error.strerror)
                        continue
                    yield path, f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"

    @override
    def move(self, path: str, to: str) -> None:
        self._at(to).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._at(path), self._at(to))

    @override
    def exists(self, path: str) -> bool:
        return self._at(path).exists()

    @override
    def remove(self, path: str) -> None:
        self._at(path).unlink(missing_ok=True)

    def remove_leftovers(self, folder: str, *, deep: bool = True) -> int:
        """Delete the temporary files of killed processes, while nobody else writes; returns their number.

        Args:
            folder: The folder.
            deep: Whether its sub-folders are searched too.
        """
        removed = 0
        for leftover in self._at(folder).glob("**/.*.tmp" if deep else ".*.tmp"):
            leftover.unlink(missing_ok=True)
            removed += 1
        return removed


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
            raise MissingExtra(package, "remote", f"Storing results on {protocol}://") from error
        except ValueError as error:
            raise ConfigurationError(f"Results can't be stored at {url}: {error}.") from error
        self._path = str(path).rstrip("/")
        protocols = self._system.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._whole = bool(names & _WHOLE_OBJECTS)
        self._local = bool(names & {"file", "local"})

    def _at(self, path: str) -> str:
        return f"{self._path}/{path}"

    @override
    def read(self, path: str) -> bytes:
        return bytes(self._system.cat_file(self._at(path)))

    @override
    def write(self, path: str, content: bytes) -> None:
        at = self._at(path)
        if self._whole:
            self._system.pipe_file(at, content)
            return
        folder, _, name = at.rpartition("/")
        self._system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{os.urandom(6).hex()}.tmp"
        self._system.pipe_file(temporary, content)
        self._system.mv(temporary, at)

    @override
    def create(self, path: str, content: bytes) -> bool:
        at = self._at(path)
        if self._local:
            return FolderRoot(Path(self._path)).create(path, content)
        if not self._whole:
            self._system.makedirs(at.rpartition("/")[0], exist_ok=True)
        try:
            # S3: If-None-Match; Google: ifGenerationMatch=0; Azure: no overwriting.
            self._system.pipe_file(at, content, mode="create")
        except FileExistsError:
            return False
        except OSError:
            # Some servers name the condition otherwise than S3 does. Only what is there decides.
            if self.exists(path) and self.read(path) != content:
                return False
            raise
        return True

    @override
    def files(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        self._system.invalidate_cache()
        try:
            entries: dict[str, dict[str, Any]] = self._system.find(self._at(folder), detail=True)
        except FileNotFoundError:
            return
        for path in sorted(entries):
            name = path.rpartition("/")[2]
            if name.endswith(suffix) and not name.startswith("."):
                info = entries[path]
                marks = [info.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified", "created", "ino")]
                relative = path[path.index(f"{self._path}/") + len(self._path) + 1 :]
                yield relative, ":".join(str(mark) for mark in marks if mark is not None)

    @override
    def move(self, path: str, to: str) -> None:
        folder = self._at(to).rpartition("/")[0]
        self._system.makedirs(folder, exist_ok=True)
        self._system.mv(self._at(path), self._at(to))

    @override
    def exists(self, path: str) -> bool:
        self._system.invalidate_cache()  # another machine may have written it meanwhile
        return bool(self._system.exists(self._at(path)))

    @override
    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._at(path))


def open_root(place: str | Path | Root) -> Root:
    """The root at a folder or a URL.

    Raises:
        MissingExtra: If a package is needed to reach it.
        ConfigurationError: If fsspec does not understand the URL.
    """
    if isinstance(place, Root):
        return place
    if isinstance(place, str) and "://" in place:
        return RemoteRoot(place)
    return FolderRoot(Path(place))
