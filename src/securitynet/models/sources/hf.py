"""A network in a repository of the Hugging Face Hub.

``hf:OWNER/NAME[@REVISION]``, or ``hf:./FOLDER`` for what ``save_pretrained`` wrote. Two files are read:
``config.json``, which names an architecture that timm or transformers itself defines, and the weights; of transformers
also ``preprocessor_config.json``. Code in a repository is neither fetched nor run.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from securitynet.errors import ModelError, describe_problems
from securitynet.models.sources._hub import fetch_hub_file, is_hub_file
from securitynet.models.sources._transformers import open_transformers, read_weights_file
from securitynet.models.sources.base import NetworkSource, Progress
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.timm import WEIGHTS_FILES, open_timm
from securitynet.torchvision_cure import import_torchvision
from securitynet.untrusted import MAX_SETTINGS, parse_json, read_bytes

SCHEME = Scheme(
    "hf",
    "hf:owner/name",
    remark="or hf:./folder",
    network=True,
    takes_weights=True,
    folders=True,
    members=("config.json", "*.safetensors"),
    pattern="(?P<name>[^/@]+/[^/@]+)(@(?P<detail>.*))?",
    mismatch="is not a repository of the hub",
    libraries=("timm", "transformers"),
)

_PROCESSOR = "preprocessor_config.json"

_COUNTS = re.compile("layers|depth|blocks|stages|repeats")
_MOST_LAYERS = 10_000

# Arguments of timm's factory that name files or other models rather than describe a network.
_REFUSED = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "num_classes",
        "in_chans",
    }
)


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe the network of a Hub repository, or of a local copy of one.

    Raises:
        ModelError: If the repository cannot be reached, or its configuration names no architecture of timm.
    """
    repository, revision, folder, name = reference.name, reference.detail, reference.path, str(reference)
    if folder is not None:
        path = _local_file(folder, ("config.json",), name)
    else:
        path = fetch_hub_file(repository, ("config.json",), revision=revision, reference=name)
    config = _read(path, name)
    try:
        if "model_type" in config and "architecture" not in config:
            return _open_transformers(config, reference, name)
        return _open_timm(config, reference, name)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise ModelError(
            f"{name}: its configuration holds values that mean nothing: {_describe(error)}.",
            hint="Check config.json and preprocessor_config.json.",
        ) from error


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return describe_problems(error)
    return str(error).partition("\n")[0] or type(error).__name__


def _open_timm(config: dict[str, Any], reference: ModelReference, name: str) -> NetworkSource:
    """A model of timm, with the values that its configuration states."""
    folder, repository, revision = reference.path, reference.name, reference.detail
    architecture = _check_timm(config, name)
    pretrained = dict(config.get("pretrained_cfg") or config)
    for key in ("num_classes", "label_names"):
        if config.get(key) is not None:
            pretrained[key] = config[key]
    arguments = {key: value for key, value in (config.get("model_args") or {}).items() if key not in _REFUSED}

    def fetch_own(_progress: Progress | None) -> Path:
        if folder is not None:
            return _local_file(folder, ("model.safetensors", "*.safetensors"), name)
        return fetch_hub_file(repository, WEIGHTS_FILES, revision=revision, reference=name)

    def is_own(path: Path) -> bool:
        if folder is not None:
            return path.resolve().parent == folder.resolve()
        return is_hub_file(path, repository, WEIGHTS_FILES, revision=revision)

    return open_timm(architecture, pretrained, arguments=arguments, fetch=fetch_own, is_own=is_own)


def _open_transformers(config: dict[str, Any], reference: ModelReference, name: str) -> NetworkSource:
    """A model that transformers' own ``save_pretrained`` wrote; of its files of weights, safetensors only."""
    folder, repository, revision = reference.path, reference.name, reference.detail

    def fetch_own(_progress: Progress | None) -> Path:
        if folder is not None:
            return read_weights_file(folder, name)
        return fetch_hub_file(repository, WEIGHTS_FILES[:1], revision=revision, reference=name)

    def is_own(path: Path) -> bool:
        if folder is not None:
            return path.resolve().parent == folder.resolve()
        return is_hub_file(path, repository, WEIGHTS_FILES[:1], revision=revision)

    processor = None
    if folder is None:
        with contextlib.suppress(ModelError):  # many models have none: nothing is stated then
            processor = _read(fetch_hub_file(repository, (_PROCESSOR,), revision=revision, reference=name), name)
    elif (folder / _PROCESSOR).is_file():
        processor = _read(folder / _PROCESSOR, name)
    return open_transformers(config, processor, name=name, fetch=fetch_own, is_own=is_own)


def _local_file(folder: Path, patterns: tuple[str, ...], name: str) -> Path:
    """The first file in a local folder that matches one of the patterns; pickles are ignored."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}.", hint="Write hf:owner/name for a repository of the hub.")
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            return path
    raise ModelError(
        f"{name} has no {patterns[-1]}.",
        hint="Save the model with save_pretrained(FOLDER, safe_serialization=True).",
    )


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = parse_json(read_bytes(path, MAX_SETTINGS))
    except (ValueError, OSError) as error:
        raise ModelError(f"{name}: its {path.name} cannot be read.", hint="Download the repository again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{name}: its {path.name} is no table of settings.", hint="Download the repository again.")
    _check_counts(config, f"{name}: its {path.name}")
    return config


def _check_counts(settings: Any, where: str) -> None:
    """Refuse numbers of layers that no network has: building them would not end, even without their weights."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        counts = value if isinstance(value, list) else [value]
        if _COUNTS.search(str(key)) and any(isinstance(count, int) and count > _MOST_LAYERS for count in counts):
            raise ModelError(f"{where} asks for {key} = {str(value)[:40]}, which no network has.")
        _check_counts(value, where)


def _check_timm(config: dict[str, Any], name: str) -> str:
    """The architecture of timm that a configuration names; raises `ModelError` if it names none."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise ModelError(
            f"{name} holds something else than a network of timm or transformers.",
            hint="Load it by a factory of your own: python:FILE:FACTORY --weights FILE.",
        )
    if not import_torchvision("timm").is_model(architecture):
        raise ModelError(
            f"{name} needs the architecture {architecture!r}, which this version of timm does not have.",
            hint="Upgrade timm. Code in the repository itself is never run.",
        )
    return architecture
