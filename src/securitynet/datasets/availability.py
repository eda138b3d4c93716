"""Whether the files of a dataset are on this machine, and how to get them if not; nothing is downloaded or decoded."""

from __future__ import annotations

from pathlib import Path

from securitynet.datasets.loading import make_request
from securitynet.datasets.references import name_for_loading
from securitynet.datasets.registry import DATASETS
from securitynet.errors import SecurityNetError

_CARRIED = ("digits",)
_BY_HAND = ("imagenet", "celeba", "utkface")


def explain_absent(reference: str, root: Path | None = None) -> str | None:
    """How to get a dataset whose files are absent; None if something lies where they belong.

    Args:
        reference: Reference of the dataset.
        root: Folder of its files; None for the usual one.

    Raises:
        SecurityNetError: If there is no such dataset.
    """
    request = make_request(name_for_loading(reference), root)
    if request.name in _CARRIED:
        return None
    if request.name in ("folder", "parquet"):
        return None if request.root.exists() else f"there is no folder {request.root}; put the dataset there"
    if request.root.is_dir() and any(not item.name.startswith(".") for item in request.root.iterdir()):
        return None
    if request.name in _BY_HAND:
        try:
            DATASETS.get(request.name)(request)
        except SecurityNetError as error:
            return f"{error.message} {error.hint or ''}".strip()
        return None
    urls = _addresses(request.name)
    source = f" from {', '.join(urls)}" if urls else ""
    return f"it is downloaded{source} when it is first used; without a network, put the files into {request.root}"


def _addresses(name: str) -> list[str]:
    """Where the files of a dataset are published, as far as that is known without its package."""
    from securitynet.datasets.arrays import FILES
    from securitynet.datasets.photos import CUB

    if name == "cub200":
        return [CUB.url]
    return [file.url for key, file in FILES.items() if key == name or key.startswith(f"{name}-")]
