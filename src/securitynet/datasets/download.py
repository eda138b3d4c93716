"""Downloads and unpacks published files: resumable, verified, and stored completely or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import httpx

from securitynet.datasets.locks import hold_file_lock
from securitynet.datasets.progress import show_progress_bar
from securitynet.errors import DatasetError
from securitynet.exchange import open_client

ATTEMPTS = 4
"""Connections tried for one file before giving up; each resumes where the last one broke off."""

_PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
_TIMEOUT = httpx.Timeout(60.0, connect=20.0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        url: Its address.
        name: Its name on disk.
        checksum: ``md5:`` or ``sha256:`` and the published digest in hexadecimal. An MD5 shows that the transfer was
            correct; it does not show who made the file.
    """

    url: str
    name: str
    checksum: str


def fetch_file(file: RemoteFile, folder: Path) -> Path:
    """Return the file under ``folder``, downloading it if it is not there.

    It is written to ``NAME.part``, from which a later call resumes, and renamed once its checksum is correct.

    Raises:
        DatasetError: If it cannot be downloaded, or is not the published file.
    """
    path = folder / file.name
    if path.is_file():
        return path
    try:
        with hold_file_lock(folder / f".{file.name}.lock"):
            if path.is_file():  # another process was faster
                return path
            part = folder / f"{file.name}.part"
            resumed = part.is_file() and part.stat().st_size > 0
            _download(file, part, path)
            if not matches(file, part) and resumed:
                # An earlier run may have left part of another version of the file.
                part.unlink()
                _download(file, part, path)
            if not matches(file, part):
                part.unlink()
                raise DatasetError(
                    f"{file.url} gave a file whose checksum is not the published one ({file.checksum}).",
                    hint=f"Try again later, or put the right file at {path}.",
                )
            os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def fetch_unpacked(file: RemoteFile, folder: Path, inner: str) -> Path:
    """Return the folder ``inner`` of a published tar archive, unpacking it once under ``folder``.

    Args:
        file: The archive.
        folder: Where it is downloaded and unpacked.
        inner: Name of a folder in the archive.

    Raises:
        DatasetError: If the archive cannot be downloaded, is not the published file, is damaged or unsafe, or contains
            no such folder.
    """
    place = folder / inner
    if place.is_dir():
        return place
    archive = fetch_file(file, folder)
    try:
        with hold_file_lock(folder / f".{inner}.lock") as alone:
            if place.is_dir():
                return place
            if not matches(file, archive):
                raise DatasetError(
                    f"{archive} is not the published file: its checksum is not {file.checksum}.",
                    hint="Delete it to have it downloaded again.",
                )
            if alone:
                for leftover in folder.glob(f".unpacking-{inner}-*"):
                    shutil.rmtree(leftover)
            unpack_archive(archive, folder, inner)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return place


def unpack_archive(archive: Path, folder: Path, inner: str) -> None:
    """Unpack a tar archive beside its final place, then move the folder ``inner`` there in one step.

    Members and links that point outside, and devices, are refused (PEP 706).

    Args:
        archive: The archive.
        folder: Where the folder is moved to.
        inner: Name of a folder in the archive.

    Raises:
        DatasetError: If the archive is damaged or unsafe, or contains no such folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError(
            "This Python cannot unpack archives safely.", hint="Use Python 3.10.12, 3.11.4, 3.12 or a later one."
        )
    temporary = Path(tempfile.mkdtemp(prefix=f".unpacking-{inner}-", dir=folder))
    try:
        with tarfile.open(archive) as members:
            members.extractall(temporary, filter="data")
        if not (temporary / inner).is_dir():
            raise DatasetError(f"{archive} holds no folder {inner}.", hint="It is not the archive of this dataset.")
        os.replace(temporary / inner, folder / inner)
    except tarfile.FilterError as error:
        raise DatasetError(f"{archive} is unsafe to unpack: {error}.", hint="Do not use it.") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DatasetError(
            f"{archive} cannot be unpacked: {error}.", hint="If it is damaged, delete it to have it downloaded again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def matches(file: RemoteFile, path: Path) -> bool:
    """Whether a file's content has the published checksum."""
    algorithm, _, expected = file.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == expected


def _download(file: RemoteFile, part: Path, path: Path) -> None:
    """Download until ``part`` has its full length."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(file, part)
            return
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            reason = f"the server returned status {status} {error.response.reason_phrase}"
            if status < 500 and status not in (408, 429):
                raise _unavailable(file, path, reason) from error
            cause: Exception = error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            cause = error
        if attempt == ATTEMPTS:
            raise _unavailable(file, path, reason) from cause
        logger.warning("%s broke off (%s); trying again.", file.url, reason)
        time.sleep(_PAUSE * 2 ** (attempt - 1))


def _transfer(file: RemoteFile, part: Path) -> None:
    """One connection: append what is missing, or start over if the server cannot resume."""
    start = part.stat().st_size if part.is_file() else 0
    # Without compression in transfer, because ranges count the bytes of the file itself.
    headers = {"User-Agent": "securitynet", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with (
        open_client(follow_redirects=True, timeout=_TIMEOUT) as client,
        client.stream("GET", file.url, headers=headers) as response,
    ):
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the checksum verifies it
        response.raise_for_status()
        resumes = response.status_code == httpx.codes.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        with (
            part.open("ab" if resumes else "wb") as stream,
            show_progress_bar(f"Downloading {file.name}", int(length) if length else None, in_bytes=True) as advance,
        ):
            # Raw, in pieces of any size: fixed-size blocks would lose the last one if the connection breaks, and some
            # servers declare a .gz file's own compression as a transfer encoding, which must not be undone.
            for block in response.iter_raw():
                stream.write(block)
                advance(len(block))
            stream.flush()
            os.fsync(stream.fileno())


def _unwritable(path: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"{path} cannot be written: {error.strerror or error}.",
        hint="Set SECURITYNET_DATA to a folder with free space.",
    )


def _unavailable(file: RemoteFile, path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{file.url} cannot be downloaded: {reason.rstrip('.')}.", hint=f"Download it by hand and put it at {path}."
    )
