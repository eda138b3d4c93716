"""What a loader returns: labels and parts, and pixels that have not been decoded yet."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute
from securitynet.datasets.checksums import Checksums
from securitynet.errors import DatasetError
from securitynet.files import make_printable

Indices: TypeAlias = NDArray[np.int64]
Item: TypeAlias = "bytes | Path | NDArray[np.uint8]"
"""One image before decoding: an encoded image, the path of one, or a C×H×W array."""


class Pixels(Protocol):
    """The images of a dataset as its files hold them."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of an image, for messages."""

    def record_name(self, index: int) -> str | None:
        """Its name in results: see `securitynet.datasets.base.ImageDataset`; None if it has no name."""

    def fetch(self, indices: Indices) -> list[Item]:
        """The images at ``indices``, in that order."""

    def digest(self, indices: Indices | None, checksums: Checksums | None) -> str:
        """Hexadecimal digest of the images at ``indices`` (None: all), the same on every machine and under every path.

        It covers the files' content if ``checksums`` is given, else only their names and sizes.
        """


@dataclass(frozen=True)
class Request:
    """A request to a loader.

    Attributes:
        reference: Reference as the user wrote it.
        name: The dataset's name in the registry.
        root: Folder of its files, existing or to be downloaded.
        image_column: Column of a table that holds the images; None for the usual names.
        label_column: Column that holds the labels; likewise.
    """

    reference: str
    name: str
    root: Path
    image_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True)
class Source:
    """A dataset before its pixels are decoded; fields as in `ImageDataset`.

    Attributes:
        labels: int64, N.
        class_names: One per class.
        parts: Name of part -> int64 indices.
        pixels: N images.
        attributes: Further labels.
        notes: Remarks for the reader of results, on how the images were located.
        crop: None: the whole image is resized to the requested square. Else the share of the shorter side that a
            centred square crop takes, as is usual for models that are trained on crops.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: Mapping[str, Indices]
    pixels: Pixels
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    crop: float | None = None


class RecordNames(Sequence[str]):
    """Names of the records of a source, created on first use.

    A record without a file is named after its part and its position there, as `torchvision` counts them.

    Args:
        pixels: The images.
        parts: The source's own parts.
        chosen: The selected records, in order; None for all.
    """

    def __init__(self, pixels: Pixels, parts: Mapping[str, Indices], chosen: Indices | None = None) -> None:
        self._pixels = pixels
        self._parts = parts
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._pixels) if self._chosen is None else len(self._chosen)

    @cached_property
    def _places(self) -> dict[int, str]:
        return {
            int(record): f"{part}/{position}"
            for part, indices in self._parts.items()
            for position, record in enumerate(indices)
        }

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        record = range(len(self))[index] if self._chosen is None else int(self._chosen[index])
        name = self._pixels.record_name(record)
        return self._places.get(record, f"record {record}") if name is None else name

    def fetch(self, records: Indices) -> list[Item]:
        """What the records at these positions were read from: files, or arrays where there are none."""
        return self._pixels.fetch(records if self._chosen is None else self._chosen[records])

    def select(self, chosen: Indices) -> RecordNames:
        """The names of the records at ``chosen``, out of all records of the source."""
        return RecordNames(self._pixels, self._parts, chosen)


class FilePixels:
    """Image files under one folder.

    Args:
        root: The folder; names in messages and digests are relative to it.
        paths: The files, in the order of the records.
    """

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self._root = root
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """Path of the file."""
        return make_printable(str(self._paths[index]))

    def record_name(self, index: int) -> str:
        """Path below the folder."""
        return make_printable(self._paths[index].relative_to(self._root).as_posix())

    def fetch(self, indices: Indices) -> list[Item]:
        """Paths of the files; the decoding threads read them."""
        return [self._paths[index] for index in indices]

    def digest(self, indices: Indices | None, checksums: Checksums | None) -> str:
        """Digest of relative paths with checksums, or with sizes."""
        paths = self._paths if indices is None else [self._paths[index] for index in indices]
        if checksums is None:
            marks = [str(_size(path)) for path in paths]
        else:
            marks = checksums.of(paths)
        digest = hashlib.sha256(b"sizes" if checksums is None else b"content")
        for path, mark in zip(paths, marks, strict=True):
            digest.update(f"{path.relative_to(self._root).as_posix()}\0{mark}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


class ZipPixels:
    """Image files inside a zip archive, which is never unpacked.

    Args:
        archive: The archive.
        members: Names of its files, in the order of the records.

    Raises:
        DatasetError: If it is not a zip archive, or a member is missing.
    """

    def __init__(self, archive: Path, members: Sequence[str]) -> None:
        self._path = archive
        self._members = list(members)
        try:
            self._archive = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{archive} is not a readable zip archive: {error}.") from error
        present = set(self._archive.namelist())
        absent = [member for member in self._members if member not in present]
        if absent:
            raise DatasetError(f"{archive} lacks {len(absent)} of the images listed, the first being {absent[0]}.")

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        """Archive and member."""
        return f"{self._path}!{self._members[index]}"

    def record_name(self, index: int) -> str:
        """Member of the archive."""
        return self._members[index]

    def fetch(self, indices: Indices) -> list[Item]:
        """Contents of the members."""
        items: list[Item] = []
        for index in indices:
            try:
                items.append(self._archive.read(self._members[index]))
            except (OSError, zipfile.BadZipFile, ValueError) as error:
                raise DatasetError(f"{self.name(index)} cannot be read: {error}.") from error
        return items

    def digest(self, indices: Indices | None, checksums: Checksums | None) -> str:
        """Digest of members with their CRC-32 and size, which the archive's directory states and reading verifies."""
        chosen = self._members if indices is None else [self._members[index] for index in indices]
        digest = hashlib.sha256(b"zip")
        for member in chosen:
            entry = self._archive.getinfo(member)
            digest.update(f"{member}\0{entry.file_size}\0{entry.CRC}\0".encode())
        return digest.hexdigest()


class ArrayPixels:
    """Images that are stored as one array, read on first use.

    Args:
        read: Returns uint8, N×C×H×W.
        shape: (N, C, H, W) of the array that ``read`` returns.
        files: The files that it reads, whose checksums make the digest.
        content: A digest of the array, if there are no files.
    """

    def __init__(
        self,
        read: Callable[[], NDArray[np.uint8]],
        shape: tuple[int, int, int, int],
        *,
        files: Sequence[Path] = (),
        content: str | None = None,
    ) -> None:
        self._read = read
        self.files = list(files)
        self._content = content
        self._lock = threading.Lock()
        self._array: NDArray[np.uint8] | None = None
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def name(self, index: int) -> str:
        """Number of the record."""
        return f"record {index}"

    def record_name(self, index: int) -> None:
        """None: a row of an array has no name."""
        return

    def fetch(self, indices: Indices) -> list[Item]:
        """C×H×W views."""
        with self._lock:
            if self._array is None:
                array = self._read()
                if array.shape != self.shape or array.dtype != np.uint8:
                    raise DatasetError(
                        f"Images of shape {array.shape} and type {array.dtype}; expected {self.shape}, uint8."
                    )
                self._array = array
        array = self._array
        return [array[index] for index in indices]

    def digest(self, indices: Indices | None, checksums: Checksums | None) -> str:
        """Digest of the whole files, and the indices."""
        digest = hashlib.sha256(repr(self.shape).encode())
        if self._content is not None:
            digest.update(self._content.encode())
        elif checksums is not None:
            digest.update("\0".join(checksums.of(self.files)).encode())
        else:
            digest.update("\0".join(f"{path.name} {_size(path)}" for path in self.files).encode())
        return digest_with(digest.hexdigest(), indices)


def digest_with(digest: str, indices: Indices | None) -> str:
    """``digest`` itself for all records, or one that also covers the selection."""
    if indices is None:
        return digest
    return hashlib.sha256(digest.encode() + indices.astype("<i8").tobytes()).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
