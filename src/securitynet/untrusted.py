"""The rules for opening files that others made: nothing is read or allocated before its size is known to be reasonable.

A path may name a device that never ends or a pipe that never begins; a compressed file or a header may announce
terabytes in a few bytes; a document may be nested deeper than any parser can follow.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import stat
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from securitynet.errors import ConfigurationError, RefusedFile

MAX_SIZE_VARIABLE = "SECURITYNET_MAX_SIZE"
"""The environment variable with the largest size, in GiB, to which a small file may grow, and of a download."""

MAX_TEXT = 256 << 20
"""Largest size in bytes of a table, list or document that is read whole."""

MAX_SETTINGS = 16 << 20
"""Largest size in bytes of a file of settings."""

ANY_SIZE = 1 << 50
"""A size in bytes that no file reaches, for files that this package has written."""

_MOST_LEVELS = 200
"""Depth of a JSON document; Pydantic writes none of more than 255 levels, and recursions have limits of their own."""

_ENCRYPTED = 1
"""Flag of a member of a zip archive."""

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

_DEFAULT_GIB = 0.5
_DOWNLOAD_GIB = 16
"""The largest image classifiers that are public have 10 GiB of weights."""

_USUAL_RATIO = 20
"""Compression that real data reach; what grows by no more is bounded by the file's own size."""


def bound_growth(packed: int) -> int:
    """The largest size in bytes to which a file may grow when it is read.

    Args:
        packed: Size of the file in bytes.

    Raises:
        ConfigurationError: If the environment variable is set to something else than a positive number.
    """
    return max(_read_limit(_DEFAULT_GIB), _USUAL_RATIO * packed)


def bound_download() -> int:
    """The largest size in bytes of a file that is downloaded; the environment variable raises or lowers it.

    Raises:
        ConfigurationError: If the variable is set to something else than a positive number.
    """
    return _read_limit(_DOWNLOAD_GIB)


def _read_limit(default: float) -> int:
    """The limit that the user has set, or the default one in GiB, in bytes."""
    text = os.environ.get(MAX_SIZE_VARIABLE) or str(default)
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib < 2**20:
        raise ConfigurationError(f"{MAX_SIZE_VARIABLE} is {text!r}, which is not a size.", hint="Give it in GiB: 4.")
    return int(gib * 2**30)


def check_growth(name: str, packed: int, unpacked: int) -> None:
    """Raise `RefusedFile` if a file would take too much memory when it is read.

    Args:
        name: The file, for the message.
        packed: Its size in bytes.
        unpacked: The size to which it grows in bytes.
    """
    if unpacked > bound_growth(packed):
        raise RefusedFile(
            f"{name} has {describe_size(packed)} and would take {describe_size(unpacked)} of memory: it is not read.",
            hint="If you trust it, allow that many GiB: securitynet --max-size GIB COMMAND, or set "
            f"{MAX_SIZE_VARIABLE}.",
        )


def check_regular(path: Path | str) -> None:
    """Raise `RefusedFile` if a path is there and neither a regular file nor a folder, such as a pipe or a device."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path takes longer to make than a small file to read)
    except (OSError, ValueError):  # what is not there, or may not be looked at, is the caller's concern
        return
    mode = status.st_mode
    blocks = getattr(status, "st_blocks", None)  # of 512 bytes; Windows does not say
    if stat.S_ISREG(mode) and blocks is not None and status.st_size > bound_growth(blocks * 512):
        check_growth(f"{path}, a file with holes,", _measure_data(path, status.st_size), status.st_size)
    if stat.S_ISREG(mode) and status.st_dev in _kernel_file_systems():
        raise RefusedFile(f"{path} is not a file on a disk but one of the kernel: it is not read.")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise RefusedFile(
            f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file.",
            hint="Save its content in a file, and give that.",
        )


def _measure_data(path: Path | str, size: int) -> int:
    """Bytes of a file that are not holes; all of them where the file system does not say."""
    data = end = 0
    with open(path, "rb") as stream, contextlib.suppress(OSError):  # noqa: PTH123 (likewise); no data beyond the end
        while end < size:
            begin = os.lseek(stream.fileno(), end, os.SEEK_DATA)
            end = os.lseek(stream.fileno(), begin, os.SEEK_HOLE)
            data += end - begin
    return data


@functools.cache
def _kernel_file_systems() -> frozenset[int]:
    """Devices of the file systems whose files only seem to be regular: reading ``/proc/kmsg`` waits for ever."""
    devices = set()
    for place in ("/proc", "/sys"):
        with contextlib.suppress(OSError):
            devices.add(os.stat(place).st_dev)  # noqa: PTH116 (likewise)
    return frozenset(devices - {os.stat("/").st_dev})  # noqa: PTH116 (likewise)


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        RefusedFile: If it is not a regular file.
        OSError: If it cannot be opened.
    """
    check_regular(path)
    return open(path, "rb")  # noqa: PTH123 (likewise)


def read_bytes(path: Path | str, limit: int = MAX_TEXT) -> bytes:
    """Read a file whole.

    Args:
        path: The file.
        limit: Largest size in bytes.

    Raises:
        RefusedFile: If it is larger, or not a regular file.
        OSError: If it cannot be read.
    """
    with open_regular(path) as stream:
        # `read(n)` allocates n bytes first, which takes longer than to read a small file.
        stated = min(limit, os.fstat(stream.fileno()).st_size)
        content = stream.read(stated + 1)
        if len(content) > stated:  # it is too large, or has grown, or its file system does not know its size
            content += stream.read(limit + 1 - len(content))
    if len(content) > limit:
        raise RefusedFile(
            f"{path} is larger than {describe_size(limit)}: it is not read.", hint="Is it the right file?"
        )
    return content


def read_stored(path: Path | str) -> bytes:
    """Read a file of the cache or of a run's state, of whatever size.

    Raises:
        OSError: If it cannot be read, or something else is in its place: a pipe, a device, a file of holes.
    """
    try:
        return read_bytes(path, ANY_SIZE)
    except RefusedFile as error:
        raise OSError(error.message) from error


def parse_json(document: str | bytes) -> Any:
    """Parse a JSON document.

    Raises:
        ValueError: If it is not valid, or nested too deeply.
    """
    try:
        value = json.loads(document)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(document, bytes):
        brackets = document.count(b"[") + document.count(b"{")
    else:
        brackets = document.count("[") + document.count("{")
    if brackets > _MOST_LEVELS:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise ``ValueError`` if a value is nested more deeply than those who walk through it can follow."""
    level = [value]
    for _ in range(_MOST_LEVELS + 1):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for items in inner for item in items]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def check_archive(file: Path | bytes, name: str | None = None) -> None:
    """Raise `RefusedFile` if a zip archive would grow too much, or announces arrays that it does not hold.

    The size that the archive states for a member bounds what is read of it, so that nothing need be decompressed here
    but the headers of NumPy arrays.

    Args:
        file: The archive, or its content.
        name: The archive, for messages; by default the name of the file.

    Raises:
        RefusedFile: If it is refused, or not a regular file.
        OSError: If it cannot be read.
        zipfile.BadZipFile: If it is not an archive, or one that can only be read with a password.
        ValueError: If a NumPy array in it has no valid header.
    """
    source: Path | io.BytesIO
    if isinstance(file, bytes):
        packed, source = len(file), io.BytesIO(file)
    else:
        check_regular(file)
        packed, source, name = file.stat().st_size, file, name or file.name
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        check_growth(name or "The archive", packed, sum(member.file_size for member in members))
        for member in members:
            if member.flag_bits & _ENCRYPTED or member.compress_type not in _COMPRESSIONS:
                raise zipfile.BadZipFile(f"{member.filename} is encrypted, or compressed in an unknown way")
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    check_array_header(stream, f"{name or 'The archive'}: {member.filename}", member.file_size)


def check_array_header(stream: Any, name: str, size: int) -> None:
    """Raise `RefusedFile` if the header of a NumPy array announces more values than its file holds.

    Args:
        stream: The file, at its beginning; its header is read.
        name: The array, for the message.
        size: Size of the file in bytes.

    Raises:
        RefusedFile: If it does.
        ValueError: If it has no valid header.
    """
    # Here, not above: the command line starts without it.
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    count = 1
    for length in shape:
        count *= max(int(length), 0)
    if not dtype.hasobject and count * dtype.itemsize > size:
        raise RefusedFile(
            f"{name} announces an array of {describe_size(count * dtype.itemsize)} and holds {describe_size(size)}: "
            "it is damaged or hostile, and not read.",
            hint="Fetch it again, or write it again with NumPy.",
        )


def list_foreign_queries(connection: Any, own: Collection[str] = ()) -> list[str]:
    """Names of the views and triggers in a SQLite database, but for this package's own.

    In a file of someone else, a view is a query that whoever reads a table of that name runs, and a trigger one that
    whoever writes into the table runs. It need never end.

    Args:
        connection: A connection of the driver.
        own: Statements that made the triggers of this package.
    """
    try:
        rows = connection.execute(
            "SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master WHERE type IN ('view', 'trigger') LIMIT 20"
        ).fetchall()
    except UnicodeDecodeError as error:  # of SQLite's own message, which quotes a damaged schema
        import sqlite3  # not above: the command line starts without it

        raise sqlite3.DatabaseError("malformed database schema") from error
    texts = [tuple((value or b"").decode("utf-8", "replace") for value in row) for row in rows]
    return [name for name, statement in texts if statement not in own][:5]


def describe_size(size: int) -> str:
    """A number of bytes for people: ``1,634 bytes``, ``7.0 GiB``."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,} bytes"
