"""Datasets whose files hold raw arrays: CIFAR-10, CIFAR-100, SVHN, STL-10, MNIST, Fashion-MNIST.

The CIFAR datasets also exist as Python pickles, which cannot be read without executing them, so the binary versions are
used.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.download import RemoteFile, fetch_file, fetch_unpacked
from securitynet.datasets.source import ArrayPixels, Indices, Request, Source
from securitynet.errors import DatasetError, RefusedFile
from securitynet.first_run import limit_growth
from securitynet.untrusted import MAX_SETTINGS, check_growth, check_regular, read_bytes

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_SVHN = "http://ufldl.stanford.edu/housenumbers"

FILES = {
    "cifar10": RemoteFile(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "cifar-10-binary.tar.gz",
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": RemoteFile(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "cifar-100-binary.tar.gz",
        "md5:03b5dce01913d631647c71ecec9e9cb8",
    ),
    "stl10": RemoteFile(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "stl10_binary.tar.gz",
        "md5:91f7769df0f17e558f3565bffb0c7dfb",
    ),
    "svhn-train": RemoteFile(f"{_SVHN}/train_32x32.mat", "train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
    "svhn-test": RemoteFile(f"{_SVHN}/test_32x32.mat", "test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
    "mnist-train-images": RemoteFile(
        f"{_MNIST}/train-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "mnist-train-labels": RemoteFile(
        f"{_MNIST}/train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "mnist-test-images": RemoteFile(
        f"{_MNIST}/t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"
    ),
    "mnist-test-labels": RemoteFile(
        f"{_MNIST}/t10k-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"
    ),
    "fmnist-train-images": RemoteFile(
        f"{_FASHION}/train-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    "fmnist-train-labels": RemoteFile(
        f"{_FASHION}/train-labels-idx1-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
    ),
    "fmnist-test-images": RemoteFile(
        f"{_FASHION}/t10k-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "md5:bef4ecab320f06d8554ea6380940ec79",
    ),
    "fmnist-test-labels": RemoteFile(
        f"{_FASHION}/t10k-labels-idx1-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
}
"""What is downloaded, from where, with the checksums that their authors or torchvision publish."""

CLOTHING = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def cifar10(request: Request) -> Source:
    """CIFAR-10, binary version: records of a label byte and 3×32×32 values."""
    folder = _unpacked(request, FILES["cifar10"], "cifar-10-batches-bin", "data_batch_1.bin")
    train = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    names = _lines(folder / "batches.meta.txt", 10)
    return _cifar({"train": train, "test": [folder / "test_batch.bin"]}, label_bytes=1, names=names)


def cifar100(request: Request) -> Source:
    """CIFAR-100, binary version, with its fine labels: records of a coarse label, a fine label and 3×32×32 values."""
    folder = _unpacked(request, FILES["cifar100"], "cifar-100-binary", "train.bin")
    names = _lines(folder / "fine_label_names.txt", 100)
    return _cifar({"train": [folder / "train.bin"], "test": [folder / "test.bin"]}, label_bytes=2, names=names)


def svhn(request: Request) -> Source:
    """Street View House Numbers, cropped digits: MATLAB files of 32×32×3×N values; label 10 stands for the digit 0."""
    paths = {part: fetch_file(FILES[f"svhn-{part}"], request.root) for part in ("train", "test")}
    labels = [_matlab(path, "y").reshape(-1).astype(np.int64) for path in paths.values()]
    parts = _consecutive({part: len(values) for part, values in zip(paths, labels, strict=True)})
    numbers = np.concatenate(labels)
    if (numbers == 0).any():
        raise DatasetError(f"{request.root}: an SVHN label is 0; they run from 1 to 10.", hint="Get the files again.")
    numbers[numbers == 10] = 0

    def read() -> NDArray[np.uint8]:
        return np.concatenate([_matlab(path, "X").transpose(3, 2, 0, 1) for path in paths.values()])

    return Source(
        labels=numbers,
        class_names=tuple(str(digit) for digit in range(10)),
        parts=parts,
        pixels=ArrayPixels(read, (len(numbers), 3, 32, 32), files=list(paths.values())),
    )


def stl10(request: Request) -> Source:
    """STL-10, its labelled images: 3×96×96 values each, in column order; labels start at 1."""
    folder = _unpacked(request, FILES["stl10"], "stl10_binary", "train_X.bin")
    labels = {part: _raw(folder / f"{part}_y.bin").astype(np.int64) - 1 for part in ("train", "test")}
    images = {part: folder / f"{part}_X.bin" for part in labels}
    for part, path in images.items():
        _check_length(path, len(labels[part]) * 3 * 96 * 96)

    def read() -> NDArray[np.uint8]:
        stored = [_raw(path).reshape(-1, 3, 96, 96) for path in images.values()]
        return np.concatenate(stored).transpose(0, 1, 3, 2)

    numbers = np.concatenate(list(labels.values()))
    return Source(
        labels=numbers,
        class_names=_lines(folder / "class_names.txt", 10),
        parts=_consecutive({part: len(values) for part, values in labels.items()}),
        pixels=ArrayPixels(read, (len(numbers), 3, 96, 96), files=list(images.values())),
    )


def mnist(request: Request) -> Source:
    """MNIST: gzipped IDX files."""
    return _idx_dataset(request, "mnist", tuple(str(digit) for digit in range(10)))


def fmnist(request: Request) -> Source:
    """Fashion-MNIST: gzipped IDX files, as for MNIST."""
    return _idx_dataset(request, "fmnist", CLOTHING)


def _idx_dataset(request: Request, name: str, classes: tuple[str, ...]) -> Source:
    images = {part: fetch_file(FILES[f"{name}-{part}-images"], request.root) for part in ("train", "test")}
    labels = {
        part: _idx(fetch_file(FILES[f"{name}-{part}-labels"], request.root), dimensions=1).astype(np.int64)
        for part in images
    }
    for part, path in images.items():
        shape = _idx_shape(path, dimensions=3)
        if shape != (len(labels[part]), 28, 28):
            raise DatasetError(f"{path} holds images of shape {shape} for {len(labels[part])} labels.")
    numbers = np.concatenate(list(labels.values()))

    def read() -> NDArray[np.uint8]:
        return np.concatenate([_idx(path, dimensions=3) for path in images.values()])[:, None]

    return Source(
        labels=numbers,
        class_names=classes,
        parts=_consecutive({part: len(values) for part, values in labels.items()}),
        pixels=ArrayPixels(read, (len(numbers), 1, 28, 28), files=list(images.values())),
    )


def _unpacked(request: Request, file: RemoteFile, inner: str, marker: str) -> Path:
    """The folder with the dataset's files: the root itself, or the unpacked archive."""
    return request.root if (request.root / marker).is_file() else fetch_unpacked(file, request.root, inner)


def _cifar(files: dict[str, list[Path]], *, label_bytes: int, names: tuple[str, ...]) -> Source:
    record = label_bytes + 3 * 32 * 32
    labels: dict[str, NDArray[np.int64]] = {}
    for part, paths in files.items():
        # The last of the label bytes is the fine label.
        of_files = [_records(path, record)[:, label_bytes - 1].astype(np.int64) for path in paths]
        labels[part] = np.concatenate(of_files)
    numbers = np.concatenate(list(labels.values()))
    everything = [path for paths in files.values() for path in paths]

    def read() -> NDArray[np.uint8]:
        stored = [_records(path, record)[:, label_bytes:] for path in everything]
        return np.concatenate(stored).reshape(-1, 3, 32, 32)

    return Source(
        labels=numbers,
        class_names=names,
        parts=_consecutive({part: len(values) for part, values in labels.items()}),
        pixels=ArrayPixels(read, (len(numbers), 3, 32, 32), files=everything),
    )


def _records(path: Path, length: int) -> NDArray[np.uint8]:
    values = _raw(path, mapped=True)
    if len(values) % length:
        raise DatasetError(
            f"{path} has {len(values)} bytes, no multiple of the {length} of a record: it is cut off.",
            hint="Delete its folder to have it unpacked or downloaded again.",
        )
    return values.reshape(-1, length)


def _raw(path: Path, *, mapped: bool = False) -> NDArray[np.uint8]:
    check_regular(path)
    try:
        if mapped and path.stat().st_size:
            return np.memmap(path, dtype=np.uint8, mode="r")
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_length(path: Path, expected: int) -> None:
    try:
        length = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if length != expected:
        raise DatasetError(
            f"{path} has {length} bytes; its labels call for {expected}.",
            hint="Delete its folder to have it unpacked or downloaded again.",
        )


def _unreadable(path: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read: {error.strerror}.", hint="Delete its folder to have it unpacked or downloaded again."
    )


def _lines(path: Path, count: int) -> tuple[str, ...]:
    """Class names, one per line."""
    try:
        text = read_bytes(path, MAX_SETTINGS).decode("utf-8")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8.", hint="Get the file again.") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != count:
        raise DatasetError(f"{path} names {len(names)} classes instead of {count}.", hint="Get the file again.")
    return names


def read_matlab(path: Path, variable: str, **options: Any) -> Any:
    """Read a variable of a MATLAB file. Errors are those of ``scipy.io.loadmat``, and `RefusedFile`."""
    from scipy.io import loadmat

    check_regular(path)
    with limit_growth(path, f"its variable {variable!r}"):
        return loadmat(path, variable_names=[variable], **options)[variable]


def _matlab(path: Path, variable: str) -> NDArray[np.uint8]:
    try:
        values = read_matlab(path, variable)
    except RefusedFile:
        raise
    except Exception as error:  # the reader gets arbitrary bytes, and raises arbitrary errors
        raise DatasetError(
            f"{path} is not a readable MATLAB file: {error}.", hint="Delete it to get it again."
        ) from error
    if values.dtype != np.uint8 or (variable == "X" and values.shape[:3] != (32, 32, 3)):
        raise DatasetError(f"{path}: variable {variable} has shape {values.shape} and type {values.dtype}.")
    return np.asarray(values)


def _idx_header(stream: gzip.GzipFile, path: Path, dimensions: int) -> tuple[int, ...]:
    head = stream.read(4 + 4 * dimensions)
    if len(head) != 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
        raise DatasetError(f"{path} is not an IDX file of bytes with {dimensions} dimensions.", hint="Get it again.")
    return struct.unpack(f">{dimensions}I", head[4:])


def _idx_shape(path: Path, *, dimensions: int) -> tuple[int, ...]:
    try:
        check_regular(path)
        with gzip.open(path) as stream:
            return _idx_header(stream, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged: {error}.", hint="Delete it to get it again.") from error


def _idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    try:
        check_regular(path)
        with gzip.open(path) as stream:
            shape = _idx_header(stream, path, dimensions)
            check_growth(path.name, path.stat().st_size, math.prod(shape))
            content = stream.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged: {error}.", hint="Delete it to get it again.") from error
    values = np.frombuffer(content, dtype=np.uint8)
    if len(values) != int(np.prod(shape)):
        raise DatasetError(f"{path} holds {len(values)} values; its header says {shape}.", hint="Get it again.")
    return values.reshape(shape)


def _consecutive(lengths: dict[str, int]) -> dict[str, Indices]:
    """Parts that follow one another."""
    bounds: Sequence[int] = [0, *np.cumsum(list(lengths.values())).tolist()]
    return {
        part: np.arange(start, start + length, dtype=np.int64)
        for (part, length), start in zip(lengths.items(), bounds, strict=False)
    }
