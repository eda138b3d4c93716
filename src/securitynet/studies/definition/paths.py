"""Paths in study files: relative ones are resolved against the file's folder; none is part of a target's identity.

This module imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from securitynet.datasets.references import FOLDER_SCHEMES, strip_location
from securitynet.models.sources.references import parse_reference

LISTS_OF_RECORDS = ("members", "non_members")
"""Options that name a list of records."""


def resolve_path(text: str, base: Path) -> Path:
    """Make a path of the study file absolute; ``~`` and environment variables are expanded."""
    path = Path(os.path.expandvars(text)).expanduser()
    return path if path.is_absolute() else (base / path).resolve()


def resolve_reference(text: str, base: Path) -> str:
    """Make the path in a model reference absolute, if it names a file."""
    if ":" not in text and resolve_path(text, base).exists():
        text = str(resolve_path(text, base))  # a model file without its scheme
    reference = parse_reference(text)
    if reference.path is None:
        return text
    return str(reference.model_copy(update={"name": str(resolve_path(reference.name, base))}))


def resolve_architecture(text: str, base: Path) -> str:
    """An architecture, a name or a reference, whose file, if it names one, has an absolute path."""
    return resolve_reference(text, base) if ":" in text else text


def resolve_dataset(text: str, base: Path, root: str | None) -> str:
    """Make the path in a dataset reference absolute, if it names a folder and no ``data_root`` (``root``) is given.

    Args:
        text: The reference.
        base: Folder of the study file.
        root: The option ``data_root``.
    """
    scheme, colon, path = str(text).partition(":")
    return f"{scheme}:{resolve_path(path, base)}" if colon and scheme in FOLDER_SCHEMES and root is None else str(text)


def list_paths(options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """List (option, path) of the files and folders that options name."""
    for name in ("weights", *LISTS_OF_RECORDS):
        if name in options:
            yield name, Path(options[name])
    for name in ("model", "architecture"):
        text = str(options.get(name) or "")
        reference = parse_reference(text) if name == "model" or ":" in text else None
        if reference is not None and reference.path is not None:
            yield name, reference.path
    for name in ("dataset", "auxiliary_dataset"):
        scheme, colon, path = str(options.get(name) or "").partition(":")
        if colon and scheme in FOLDER_SCHEMES:
            yield name, Path(options.get("data_root") or "") / path


def strip_folder(name: str, value: Any) -> Any:
    """Return the value of an option without folders of this machine, as JSON types."""
    if name in ("weights", *LISTS_OF_RECORDS):
        return Path(str(value)).name
    if name == "model" or (name == "architecture" and ":" in str(value)):
        return str(parse_reference(str(value)).without_folders())
    if name in ("dataset", "auxiliary_dataset") and isinstance(value, str):
        return strip_location(value)
    return json.loads(json.dumps(value))


def strip_folders(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return options without folders of this machine; options that only name such folders are left out."""
    return {name: strip_folder(name, value) for name, value in values.items() if name not in names}
