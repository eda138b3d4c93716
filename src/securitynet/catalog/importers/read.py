"""Reading a table from a file or a URL, by what it is."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from securitynet.catalog.importers.base import Table, TableError
from securitynet.catalog.importers.markdown import read_markdown
from securitynet.catalog.importers.rows import read_csv, read_json_lines, read_parquet
from securitynet.untrusted import read_bytes

MAX_BYTES = 256 * 2**20
_SECONDS = 30
"""In which a table must have come from its server."""
_SUFFIXES = (".md", ".markdown", ".csv", ".jsonl", ".ndjson", ".parquet")


def read_published_table(location: str | Path, *, source: str | None = None) -> Table:
    """Read a published table; nothing is written.

    Args:
        location: A file or an http(s) URL. Its suffix says what it is: ``.md``, ``.csv``, ``.jsonl``, ``.parquet``.
        source: What to name as the source of its values; the file's name if not given.

    Raises:
        TableError: If it cannot be read, is no table, or lacks columns.
    """
    text = str(location)
    is_url = text.startswith(("http://", "https://"))
    name = PurePosixPath(urlsplit(text).path).name if is_url else Path(text).name
    content = _download(text) if is_url else _file(Path(text))
    source = source or f"import:{name}"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet" or content[:4] == b"PAR1":
        return read_parquet(content, source)
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{name} is not a text file in UTF-8 (byte {error.start}).", hint="Save it as UTF-8."
        ) from None
    if "\0" in decoded:
        raise TableError(f"{name} is a binary file, no table.", hint=f"Known: {', '.join(_SUFFIXES)}.")
    if suffix in (".md", ".markdown"):
        return read_markdown(decoded, source)
    if suffix == ".csv":
        return read_csv(decoded, source)
    if suffix in (".jsonl", ".ndjson"):
        return read_json_lines(decoded, source)
    raise TableError(
        f"{name}: files of kind {suffix or '(no suffix)'} are not read.", hint=f"Known: {', '.join(_SUFFIXES)}."
    )


def _file(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise TableError(
            f"{path} cannot be read: {error.strerror}.", hint="Give the path of a file, or a URL."
        ) from None


def _download(url: str) -> bytes:
    import httpx

    from securitynet.exchange import Client, TooLarge, TooSlow

    try:
        with contextlib.closing(Client(timeout=_SECONDS, follow_redirects=True)) as client:
            response = client.exchange("GET", url, None, MAX_BYTES)
        if response.status == 200:
            return response.content
        raise TableError(f"{url} answered {response.status}.", hint="Check the address.")
    except TooLarge:
        raise TableError(f"{url} is larger than {MAX_BYTES >> 20} MiB.", hint="Download and split it.") from None
    except TooSlow:
        raise TableError(f"{url} was not complete after {_SECONDS} seconds.", hint="Download it first.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TableError(f"{url} cannot be fetched: {error}.", hint="Check the address and the network.") from None
