"""Files of repositories on the Hugging Face Hub, fetched by its client into the client's cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from securitynet.errors import ModelError
from securitynet.exchange import open_client
from securitynet.files import file_checksum
from securitynet.models.sources._download import check_download_size, explain_unreachable
from securitynet.untrusted import bound_download


def fetch_hub_file(repository: str, names: Iterable[str], *, revision: str | None, reference: str) -> Path:
    """Fetch the first of several files that a repository has, from the client's cache if it is there.

    Args:
        repository: ``owner/name``.
        names: Names of files, the preferred one first.
        revision: Branch, tag or commit; the main branch by default.
        reference: Reference of the model, for messages.

    Raises:
        ModelError: If the Hub cannot be reached, or has no such repository, revision or file.
    """
    from huggingface_hub import (
        constants,
        errors,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    names = list(names)
    for name in names:
        cached = try_to_load_from_cache(repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    host = urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{reference} is not in the cache of the hub's client, which is set to work offline.",
            hint=f"Unset HF_HUB_OFFLINE, or give a file that you have: {reference} --weights FILE.",
        )
    try:
        # The client itself would retry for half a minute before it reports that there is no network.
        with open_client(timeout=10) as client:
            client.head(constants.ENDPOINT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise explain_unreachable(reference, host, error) from error
    for name in names:
        try:
            stated = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).size
            check_download_size(reference, stated or 0, bound_download())
            return Path(hf_hub_download(repository, name, revision=revision))
        except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.RevisionNotFoundError) as error:
            raise ModelError(
                f"{reference}: the hub has no such repository or revision, or shows it only after a login.",
                hint="Check the name; for a gated repository run `hf auth login` first.",
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise explain_unreachable(reference, host, error) from error
        except errors.EntryNotFoundError:
            continue
        except (errors.HfHubHTTPError, httpx.HTTPError, OSError) as error:
            raise explain_unreachable(reference, host, error) from error
        except errors.HFValidationError as error:
            raise ModelError(f"{repository!r} is not the name of a repository.", hint="Write owner/name.") from error
    raise ModelError(
        f"{reference} has none of the files {', '.join(names)}.",
        hint="Only networks of timm are loaded from the hub; others by python:FILE:FACTORY with --weights.",
    )


def is_hub_file(path: Path, repository: str, names: Iterable[str], *, revision: str | None = None) -> bool:
    """Whether a file belongs to a repository, according to the cache of the Hub's client. Nothing is fetched.

    Args:
        path: The file.
        repository: ``owner/name``.
        names: Names of files in the repository.
        revision: Branch, tag or commit; the main branch by default.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    for name in names:
        cached = try_to_load_from_cache(repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision)
        if isinstance(cached, str) and Path(cached).stat().st_size == path.stat().st_size:
            return file_checksum(Path(cached)) == file_checksum(path)
    return False
