"""Downloads of weights: a file is stored whole and verified, or not at all. The module `weights` reads the files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch

from securitynet.errors import ModelError
from securitynet.exchange import open_client
from securitynet.files import find_cache_folder, write_atomically
from securitynet.models.sources.base import Progress
from securitynet.untrusted import MAX_SIZE_VARIABLE, bound_download, describe_size

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)

_PATIENCE = 60.0
"""Seconds after which a download must have reached the least speed."""

_LEAST_SPEED = 1024.0
"""Bytes a second; at fewer, even the smallest weights take hours."""


def find_models_folder() -> Path:
    """Folder of downloaded weights."""
    return find_cache_folder() / "models"


def fetch_address(
    url: str,
    *,
    reference: str,
    sha256: str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch the file at an address, from the cache if it is there.

    Args:
        url: Address of the file.
        reference: Reference of the model, for messages.
        sha256: Its SHA-256, or the first digits of it, in hexadecimal; None if none is published.
        name: Name in the cache; by default the last part of the address.
        progress: Called with (bytes done, total bytes).

    Raises:
        ModelError: If the address cannot be reached, or the file is not the published one.
    """
    name = name or Path(urlsplit(url).path).name
    for folder in (find_models_folder(), Path(torch.hub.get_dir()) / "checkpoints"):
        path = folder / name
        if path.is_file() and (sha256 is None or _matches(path, sha256)):
            return path
    path = find_models_folder() / name
    digest = hashlib.sha256()

    def check() -> None:
        if sha256 is not None and not digest.hexdigest().startswith(sha256.lower()):
            raise ModelError(
                f"The weights of {reference} arrived with another checksum than the published one.",
                hint="Try again; if it happens twice, the file at its source has been changed: do not use it.",
            )

    download(url, path, reference=reference, digest=digest.update, check=check, progress=progress)
    return path


def download(
    url: str,
    path: Path,
    *,
    reference: str,
    digest: Callable[[bytes], object] = len,
    check: Callable[[], object] = lambda: None,
    progress: Progress | None = None,
) -> None:
    """Download an address into a file, which appears only if it is complete and ``check`` raises nothing.

    Args:
        url: The address.
        path: The file to write.
        reference: Reference of the model, for messages.
        digest: Called with each piece of the content.
        check: Called at the end; raises an error if the content is not the published one.
        progress: Called with (bytes done, total bytes).

    Raises:
        ModelError: If the download fails, or is larger or slower than reasonable.
    """
    most = bound_download()
    try:
        with open_client(follow_redirects=True, timeout=_TIMEOUT) as client, client.stream("GET", url) as response:
            response.raise_for_status()
            total = int(response.headers.get("content-length") or 0)
            check_download_size(reference, total, most)
            done, started = 0, time.monotonic()
            with write_atomically(path) as stream:
                for block in response.iter_bytes():  # of any size: a block of a MiB might take a slow server days
                    stream.write(block)
                    digest(block)
                    done += len(block)
                    # A server need not state a size, and may compress nothing into gigabytes.
                    check_download_size(reference, done, most)
                    _check_speed(reference, done, time.monotonic() - started)
                    if progress:
                        progress(done, max(total, done))
                check()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise explain_unreachable(reference, urlsplit(url).netloc, error) from error


def check_download_size(reference: str, size: int, most: int) -> None:
    """Raise `ModelError` if weights are larger than `securitynet.untrusted.bound_download` allows."""
    if size > most:
        raise ModelError(
            f"The weights of {reference} have more than {describe_size(most)}: they are not downloaded.",
            hint="If you trust them, allow that many GiB: securitynet --max-size GIB COMMAND, or set "
            f"{MAX_SIZE_VARIABLE}.",
        )


def _check_speed(reference: str, done: int, seconds: float) -> None:
    if seconds > _PATIENCE and done < _LEAST_SPEED * seconds:
        raise ModelError(
            f"The weights of {reference} arrive too slowly: {describe_size(done)} in {seconds:.0f} seconds.",
            hint="Try again later, or give a file that you have with --weights FILE.",
        )


def explain_unreachable(reference: str, host: str, error: Exception) -> ModelError:
    """Make the error for weights that cannot be downloaded.

    Args:
        reference: Reference of the model.
        host: Name of the server.
        error: The original error.
    """
    if isinstance(error, httpx.HTTPStatusError):
        reason = f"{host} returned status {error.response.status_code}"
    else:
        reason = f"{host} cannot be reached"
    # The content of a repository is known only from its own configuration, so weights alone are not enough.
    form = "timm:ARCHITECTURE" if reference.startswith("hf:") else reference
    return ModelError(
        f"The weights of {reference} could not be downloaded: {reason}.",
        hint=f"Check the network, or give a file that you have: {form} --weights FILE.",
    )


def _matches(path: Path, sha256: str) -> bool:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest().startswith(sha256.lower())
