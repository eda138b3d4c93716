"""MedMNIST (Yang et al., 2023) through its package, which has the names, addresses and checksums."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.download import RemoteFile, fetch_file
from securitynet.datasets.source import ArrayPixels, Indices, Request, Source
from securitynet.errors import DatasetError, MissingExtra
from securitynet.untrusted import check_archive

_PARTS = {"train": "train", "test": "test", "val": "validation"}


def medmnist(request: Request) -> Source:
    """One two-dimensional MedMNIST dataset, 28×28, with its three parts.

    Raises:
        MissingExtra: If the package ``medmnist`` is not installed.
        DatasetError: If the dataset has several labels per image, or its file is unusable.
    """
    try:
        from medmnist.info import INFO
    except ImportError as error:
        raise MissingExtra("medmnist", "medmnist", f"The dataset {request.name}") from error
    flag = request.name.removeprefix("medmnist-")
    info = INFO[flag]
    if "multi-label" in info["task"]:
        raise DatasetError(
            f"{request.name} has several labels per image ({len(info['label'])} findings, any of them at once); a "
            "target predicts one class per image.",
            hint="Use a MedMNIST set with one label, such as medmnist-pathmnist.",
        )
    path = fetch_file(RemoteFile(info["url"], f"{flag}.npz", f"md5:{info['MD5']}"), request.root)
    labels = {part: _labels(path, f"{stored}_labels") for stored, part in _PARTS.items()}
    shapes = [_image_shape(path, f"{stored}_images", len(labels[part])) for stored, part in _PARTS.items()]
    if len(set(shapes)) != 1:
        raise DatasetError(f"{path}: the parts have images of different shapes: {shapes}.")
    height, width, channels = shapes[0]

    def read() -> NDArray[np.uint8]:
        stored = np.concatenate([_array(path, f"{name}_images") for name in _PARTS])
        return stored.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)

    numbers = np.concatenate(list(labels.values()))
    bounds = np.cumsum([0, *(len(values) for values in labels.values())])
    parts: dict[str, Indices] = {
        part: np.arange(start, start + len(values), dtype=np.int64)
        for (part, values), start in zip(labels.items(), bounds, strict=False)
    }
    return Source(
        labels=numbers,
        class_names=tuple(info["label"][str(number)] for number in range(len(info["label"]))),
        parts=parts,
        pixels=ArrayPixels(read, (len(numbers), channels, height, width), files=[path]),
    )


def _labels(path: Path, name: str) -> NDArray[np.int64]:
    values = _array(path, name)
    if values.dtype.kind not in "iu" or values.size != len(values):
        raise DatasetError(
            f"{path}: {name} has shape {values.shape} and type {values.dtype}, not one integer per image."
        )
    return values.reshape(-1).astype(np.int64)


def _array(path: Path, name: str) -> NDArray[np.uint8]:
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _damaged(path, name, error) from error


def _image_shape(path: Path, name: str, count: int) -> tuple[int, int, int]:
    """(H, W, C) from the header only, as the array itself may take hundreds of megabytes."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(stream)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _damaged(path, name, error) from error
    if dtype != np.uint8 or shape[0] != count or len(shape) not in (3, 4):
        raise DatasetError(f"{path}: {name} has shape {shape} and type {dtype} for {count} labels.")
    return shape[1], shape[2], (shape[3] if len(shape) == 4 else 1)


def _damaged(path: Path, name: str, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: {name} cannot be read: {error}.", hint="Delete the file to get it again.")
