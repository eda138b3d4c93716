"""RobustBench's own package: its definitions of networks, and files of weights in the layout that it uses.

The definitions are imported without the rest of the package, whose evaluation needs pinned versions of other packages.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from securitynet.errors import ModelError
from securitynet.files import file_checksum, find_data_folder, write_atomically
from securitynet.models.sources._download import download, find_models_folder
from securitynet.models.sources.base import Progress
from securitynet.torchvision_cure import import_torchvision

PACKAGE = "robustbench"

DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""Its names of datasets -> number of classes."""

_DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_HEAD = 512


@dataclass(frozen=True)
class Definition:
    """A model of the package's lists.

    Attributes:
        build: Builds the network, its normalisation inside, with arbitrary weights.
        parts: Identifiers of the files of its weights on Google Drive; several for an ensemble, none for one that timm
            downloads.
        preprocessing: Its name for the preprocessing of ImageNet's images; empty for none.
        timm: Configuration of a network that it registers with timm; empty for the others.
    """

    build: Callable[[], nn.Module]
    parts: tuple[str, ...]
    preprocessing: str
    timm: Mapping[str, Any]


def is_installed() -> bool:
    """Whether the package is installed."""
    return any(importlib.metadata.distributions(name=PACKAGE))


@functools.cache
def import_lists() -> Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]:
    """The package's lists of models: dataset -> threat -> name -> definition.

    Raises:
        ModelError: If a package that the definitions import is missing, or they do not work with the installed ones.
    """
    import_torchvision("timm")
    spec = importlib.util.find_spec(PACKAGE)
    placed = PACKAGE not in sys.modules
    if placed:
        # Its `__init__` imports the evaluation; the definitions need only a package to lie in.
        empty_package = types.ModuleType(PACKAGE)
        empty_package.__path__ = list(spec.submodule_search_locations or []) if spec else []
        sys.modules[PACKAGE] = empty_package
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of older names of modules of timm, which they import
            lists = importlib.import_module(f"{PACKAGE}.model_zoo.models").model_dicts
    except ImportError as error:
        raise ModelError(
            f"RobustBench's definitions cannot be imported: {error}.",
            hint="They need torchdiffeq and geotorch too: pip install --no-deps torchdiffeq geotorch.",
        ) from error
    finally:
        if placed:
            del sys.modules[PACKAGE]  # who imports it later gets the whole package
    return {
        dataset.value: {threat.value: models for threat, models in threats.items()}
        for dataset, threats in lists.items()
    }


class _WithoutGpu(TorchFunctionMode):
    """Ignores copies to a GPU, which some constructors make whether or not there is one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func is torch.Tensor.cuda else func(*args, **(kwargs or {}))


def build_robustbench_network(definition: Definition) -> nn.Module:
    """Build a model's network in main memory; what its constructor prints is not printed.

    Args:
        definition: The model.
    """
    with _WithoutGpu(), contextlib.redirect_stdout(io.StringIO()):
        return definition.build()


def find_definition(dataset: str, threat: str, name: str) -> Definition:
    """The definition of a model.

    Args:
        dataset: Its name in the package, such as ``cifar10``.
        threat: ``Linf``, ``L2`` or ``corruptions``.
        name: Name of the model.

    Raises:
        KeyError: If there is no such model.
    """
    listed = import_lists()[dataset][threat][name]
    timm = import_torchvision("timm")
    registered = f"{name}_{dataset}_{threat}".lower().replace("-", "_")
    if timm.is_model(registered):  # where the list itself holds no identifier
        build = functools.partial(timm.create_model, registered, pretrained=False, num_classes=DATASETS[dataset])
        return Definition(build, (), "", timm.models.get_pretrained_cfg(registered).to_dict())
    identifiers = listed.get("gdrive_id")
    parts = (identifiers,) if isinstance(identifiers, str) else tuple(identifiers or ())
    return Definition(listed["model"], parts, str(listed.get("preprocessing") or ""), {})


def locate_parts(dataset: str, threat: str, name: str, count: int) -> list[Path] | None:
    """The files of a model's weights that lie on this machine; None if one is missing.

    Args:
        dataset: Its name in the package.
        threat: Threat model.
        name: Name of the model.
        count: Number of files.
    """
    for folder in list_weights_folders():
        place = folder / dataset / threat
        files = [place / part for part in list_part_names(name, count)]
        if all(file.is_file() for file in files):
            return files
    return None


def list_weights_folders() -> tuple[Path, Path]:
    """Where files of weights lie: the user's folder, and that of downloads; both as the package lays them out."""
    return find_data_folder() / PACKAGE, find_models_folder() / PACKAGE


def list_part_names(name: str, count: int) -> list[str]:
    """Names of a model's files, as the package writes them.

    Args:
        name: Name of the model.
        count: Number of files.
    """
    return [f"{name}.pt"] if count == 1 else [f"{name}.pt_m{number}.pt" for number in range(count)]


def fetch_part(identifier: str, path: Path, *, reference: str, advice: str, progress: Progress | None) -> None:
    """Download one file of weights. Its digest is stored beside it, and compared whenever the file is used.

    Args:
        identifier: Address, or identifier on Google Drive.
        path: Where to write it.
        reference: Reference of the model, for messages.
        advice: How the file is laid by hand.
        progress: Called with (bytes done, total bytes).

    Raises:
        ModelError: If it cannot be downloaded.
    """
    url = identifier if identifier.startswith("https://") else _DRIVE.format(identifier)
    digest = hashlib.sha256()
    head = bytearray()

    def read(block: bytes) -> None:
        digest.update(block)
        head.extend(block[: max(0, _HEAD - len(head))])

    def check() -> None:
        if bytes(head).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise ModelError(f"{url} returned a web page in place of the weights of {reference}.", hint=advice)

    try:
        download(url, path, reference=reference, digest=read, check=check, progress=progress)
    except ModelError as error:
        raise ModelError(error.message, hint=advice) from error
    with write_atomically(_digest_path(path)) as stream:
        stream.write(digest.hexdigest().encode())


def check_part(path: Path, reference: str) -> None:
    """Raise `ModelError` if a downloaded file is not the one that was downloaded.

    Args:
        path: The file.
        reference: Reference of the model, for the message.
    """
    stored = _digest_path(path)
    if stored.is_file() and stored.read_text().strip() != file_checksum(path):
        raise ModelError(
            f"The weights of {reference} have changed since they were downloaded: {path}.",
            hint="Delete the file, so that it is downloaded again.",
        )


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
