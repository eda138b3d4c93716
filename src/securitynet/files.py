"""Files that are either whole or absent: atomic writing, checksums, and the folders for caches and data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from securitynet.errors import ConfigurationError, RefusedFile
from securitynet.untrusted import ANY_SIZE, MAX_SETTINGS, open_regular, read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{100}}")
"""A key of TOML with more than a hundred parts."""

DIGEST = "digest"
"""Field of a JSON document with the digest of all others."""

DIGEST_SCHEMA = {
    "description": "SHA-256 of the canonical JSON of all other fields; files of earlier versions have none.",
    "pattern": "^sha256:[0-9a-f]{64}$",
    "type": "string",
}
"""The JSON schema of that field."""

_DIGEST_BYTES = hashlib.sha256().digest_size


def find_cache_folder() -> Path:
    """The folder for data that can be recomputed: ``$SECURITYNET_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("SECURITYNET_CACHE") or platformdirs.user_cache_path("securitynet"))


def find_data_folder() -> Path:
    """The folder for persistent data (datasets, the catalog): ``$SECURITYNET_DATA``, or the user's data folder."""
    return Path(os.environ.get("SECURITYNET_DATA") or platformdirs.user_data_path("securitynet"))


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place only when the block ends well.

    A process killed at any moment leaves the old file or the new one, never a part of it. Its temporary file is removed
    by the next process that writes into the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    descriptor, name, lock = _create_temporary(path)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


_TEMPORARY = ".securitynet.tmp"
_searched: set[str] = set()


def _create_temporary(path: Path) -> tuple[int, str, int | None]:
    """(descriptor, name, descriptor that holds its lock) of a new file beside ``path``."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_TEMPORARY, dir=path.parent)
        if not _lock(descriptor):
            return descriptor, name, None
        if Path(name).exists():
            return descriptor, name, os.dup(descriptor)  # which holds the lock until the file has its final name
        os.close(descriptor)  # another process took it for abandoned before it was locked


def _remove_abandoned(folder: Path) -> None:
    """Delete the temporary files in a folder that no process holds, the first time that this process writes there.

    A file is locked while it is written, and the lock of a process ends with it.
    """
    if str(folder) in _searched:
        return
    _searched.add(str(folder))
    with contextlib.suppress(OSError):  # what is there may not be read, or another process removes it, too
        with os.scandir(folder) as entries:
            names = [entry.path for entry in entries if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)]
        for name in names:
            descriptor = os.open(name, os.O_RDWR)
            try:
                if _lock(descriptor):
                    Path(name).unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the lock of a file; False if another process has it, or where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows; some network file systems
        return False
    return True


def write_with_digest(path: Path, payload: bytes | memoryview) -> None:
    """Write a file that `read_with_digest` can check: the SHA-256 of a payload (32 bytes), then the payload.

    It is written whole or not at all.

    Args:
        path: The file; missing folders are created.
        payload: The content of the file.
    """
    with write_atomically(path) as stream:
        stream.write(hashlib.sha256(payload).digest())
        stream.write(payload)


def read_with_digest(path: Path) -> bytes | None:
    """The payload of a file that `write_with_digest` wrote; None if its content does not match its digest.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    try:
        content = read_bytes(path, ANY_SIZE)
    except RefusedFile:  # something else is in its place
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def check_writable(path: Path) -> None:
    """Raise `ConfigurationError` if nothing can be written at ``path``: the user should learn that before long work.

    Args:
        path: A folder, or where one will be created. Nothing is created here.
    """
    existing = Path(path).absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigurationError(f"{existing} is a file, but a folder is needed.", hint="Choose another --out.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{existing} is not writable: permission denied.", hint="Choose another --out.")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as stream:
        stream.write(text.encode("utf-8") + b"\n")


def add_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a field ``digest``, by which `check_digest` notices that it was changed or damaged.

    It is the SHA-256 of the canonical JSON of all other fields (`hash_stably`), so that it can be computed again from
    the file by any program, whatever its layout. It is no signature: who changes a file on purpose can change it too.

    Args:
        document: JSON types; a digest that it has already is replaced.
    """
    content = {name: value for name, value in document.items() if name != DIGEST}
    return {**content, DIGEST: f"sha256:{hash_stably(content, 64)}"}


def check_digest(document: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    """The document without its digest.

    Args:
        document: JSON types, as read from a file.
        required: Whether a digest must be there; files of earlier versions have none.

    Raises:
        ValueError: If the digest is not that of the other fields, or is missing and required.
    """
    content = dict(document)
    stated = content.pop(DIGEST, None)
    if stated is None and not required:
        return content
    if stated != f"sha256:{hash_stably(content, 64)}":
        raise ValueError("its digest does not match its content")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigurationError: If there is none or it can't be parsed; the line is named.
    """
    try:
        text = read_bytes(expand_home(path), MAX_SETTINGS).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} can't be read as TOML: {error}.") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str = "the text") -> dict[str, Any]:
    """The content of a TOML document.

    Args:
        text: The document.
        name: What it is, for messages.

    Raises:
        ConfigurationError: If it is not valid TOML, which it names by the line; or holds what no setting can be: a key
            of more than a hundred parts, an integer of more than 64 bits, or a NUL character.
    """
    if _LONG_KEY.search(text):  # the parser would keep each of its beginnings
        raise ConfigurationError(f"{name} can't be read as TOML: a key has more than 100 parts.")
    try:
        content = tomllib.loads(text)
        _check_values(content)
    except ValueError as error:  # syntax errors, and numbers of thousands of digits
        raise ConfigurationError(f"{name} can't be read as TOML: {error}.") from error
    except RecursionError:
        raise ConfigurationError(f"{name} can't be read as TOML: it is nested too deeply.") from None
    return content


def _check_values(value: Any) -> None:
    """Raise ``ValueError`` if something in a document is larger than TOML allows, or can be no part of a path."""
    if isinstance(value, dict):
        _check_values([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            _check_values(item)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{str(value)[:30]} has more than 64 bits")
    elif isinstance(value, str) and "\0" in value:
        raise ValueError("a text holds a NUL character")


def parse_value(text: str) -> Any:
    """Parse a value as TOML writes it; what is no such value is a plain word."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ConfigurationError:
        return text


def make_printable(text: str) -> str:
    r"""``text`` as it can be written anywhere: bytes of file names that are not UTF-8 become ``\xNN``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a UTF-16 pair, which Windows allows in names
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def expand_home(path: str | Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by the home folder.

    Raises:
        ConfigurationError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{path}: there is no such user, or the home folder is not known.") from error


def read_file_address(text: str) -> str | None:
    """Read the path in an address like ``file:///home/me/model.onnx`` (RFC 8089), also after one slash.

    Args:
        text: Anything that stands where a path is expected.

    Returns:
        The path, with ``%20`` and the like decoded; None if the text is no such address.
    """
    match = re.fullmatch(r"(?i:file):(?://(?:localhost)?(?=/))?(.+)", text.strip(), re.DOTALL)
    if match is None:
        return None
    from urllib.parse import unquote  # rarely needed, and every start would pay for it

    return unquote(match[1])


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        RefusedFile: If it is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def hash_stably(value: Any, length: int = 32) -> str:
    """A content-derived identifier: the first ``length`` digits of the SHA-256 of the canonical JSON of ``value``.

    Keys are sorted and floats are written as Python's shortest form, so that equal values give equal identifiers on
    every machine. ``value`` must consist of JSON types.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:length]


def _umask() -> int:
    # The umask can be read only by setting it; it is restored at once.
    mask = os.umask(0)
    os.umask(mask)
    return mask
