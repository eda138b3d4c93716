"""A network of pytorchcv, which has many for CIFAR, SVHN and CUB."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from securitynet.errors import MissingExtra, ModelError
from securitynet.files import write_atomically
from securitynet.models.sources._download import download, find_models_folder
from securitynet.models.sources.base import NetworkSource, Progress, Shape, explain_unknown_model
from securitynet.models.sources.preprocessing import CONVENTIONS, Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.torchvision_cure import import_torchvision

SCHEME = Scheme(
    "pytorchcv",
    "pytorchcv:resnet20_cifar10",
    network=True,
    takes_weights=True,
    libraries=("pytorchcv",),
    install="pip install 'securitynet[pytorchcv]'",
)

# Class counts by the end of a name; all other models are for ImageNet.
_ENDINGS = {"_cifar10": 10, "_cifar100": 100, "_svhn": 10, "_cub": 200}
_IMAGENET_CLASSES = 1000
# Kinds of data in its table: ImageNet, CIFAR and SVHN, CUB. The others are not for image classifiers.
_CLASSIFIERS = ("in1k", "cf", "cub")


@dataclass(frozen=True)
class _Row:
    """A row of pytorchcv's table of models; sizes and shares are empty if it states none."""

    data: str
    error: str
    sha1: str
    release: str
    size: str
    share: str


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe a network of pytorchcv.

    Raises:
        ModelError: If pytorchcv has no such model, or it is not an image classifier.
    """
    if importlib.util.find_spec("pytorchcv") is None:
        raise MissingExtra("pytorchcv", "pytorchcv", "A model of pytorchcv")
    name = reference.name
    provider = import_torchvision("pytorchcv.model_provider")
    table = _read_table()
    known = [key for key in provider._models if key in table]
    if name not in known:
        raise explain_unknown_model("pytorchcv", name, known)
    row = table[name]
    classes = next((count for ending, count in _ENDINGS.items() if name.endswith(ending)), _IMAGENET_CLASSES)

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        try:
            network: nn.Module = provider.get_model(name, num_classes=shape.num_classes, in_channels=shape.channels)
        except AssertionError as error:  # its networks for CIFAR support its own class counts only
            raise ModelError(
                f"pytorchcv does not build {name} for {shape.num_classes} classes.",
                hint="Load the weights with a factory of your own: python:FILE:FACTORY.",
            ) from error
        return network

    def fetch_own(progress: Progress | None) -> Path:
        return _fetch(reference, row, progress)

    return NetworkSource(
        architecture=f"pytorchcv:{name}",
        build=make,
        num_classes=classes,
        channels=3,
        preprocessing=_preprocessing(row),
        fetch=fetch_own if row.sha1 else None,
        is_own=lambda path: bool(row.sha1) and _sha1(path.read_bytes()) == row.sha1,
    )


def _preprocessing(row: _Row) -> Preprocessing:
    # As in its training scripts. SVHN's networks are trained with CIFAR-10's constants too.
    if row.data == "cf":
        mean, std = CONVENTIONS["cifar10-per-image"]
        return Preprocessing(mean=mean, std=std, input_size=(32, 32))
    mean, std = CONVENTIONS["imagenet"]
    size = int(row.size or 224)
    share = size / math.ceil(size / float(row.share or 0.875))
    return Preprocessing(mean=mean, std=std, input_size=(size, size), crop_share=share)


def _read_table() -> dict[str, _Row]:
    store = import_torchvision("pytorchcv.models.common.model_store")
    with Path(store.get_model_metainfos_file_path()).open(encoding="utf-8", newline="") as stream:
        rows = [{key: "" if value == "NA" else value for key, value in row.items()} for row in csv.DictReader(stream)]
    return {
        row["model_name"]: _Row(
            data=row["test_dataset"],
            error=row["error_value"],
            sha1=row["checksum"],
            release=row["repo_release_tag"],
            size=row["img_size"],
            share=row["img_scale"],
        )
        for row in rows
        if row["test_dataset"] in _CLASSIFIERS
    }


def _fetch(reference: ModelReference, row: _Row, progress: Progress | None) -> Path:
    """Fetch the published file from its zip archive, verified by the SHA-1 in pytorchcv's table."""
    file_name = f"{reference.name}-{row.error}-{row.sha1[:8]}.pth"
    for folder in (find_models_folder(), Path("~/.torch/models").expanduser()):
        path = folder / file_name
        if path.is_file() and _sha1(path.read_bytes()) == row.sha1:
            return path
    store = import_torchvision("pytorchcv.models.common.model_store")
    archive = find_models_folder() / f"{file_name}.zip"
    url = f"{store.imgclsmob_repo_url}/releases/download/{row.release}/{file_name}.zip"
    download(url, archive, reference=str(reference), progress=progress)
    path = find_models_folder() / file_name
    try:
        unpack_weights(archive, file_name, path, sha1=row.sha1, reference=str(reference))
    finally:
        archive.unlink(missing_ok=True)
    return path


def unpack_weights(archive: Path, member: str, path: Path, *, sha1: str, reference: str) -> None:
    """Extract one file from a zip archive, if its SHA-1 is the published one.

    Args:
        archive: The archive.
        member: Name of the file in it.
        path: Where to write the file.
        sha1: Published SHA-1, in hexadecimal.
        reference: Reference of the model, for messages.

    Raises:
        ModelError: If the archive is damaged, lacks the file, or holds another one.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            content = opened.read(member)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ModelError(f"The download of {reference} is damaged.", hint="Try again.") from error
    if _sha1(content) != sha1:
        raise ModelError(
            f"The weights of {reference} arrived with another checksum than the published one.",
            hint="Try again; if it happens twice, the file at its source has been changed: do not use it.",
        )
    with write_atomically(path) as stream:
        stream.write(content)


def _sha1(content: bytes) -> str:
    # The only published digest. It detects damage; the restricted reader keeps out malicious code.
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
