"""Files of published datasets and of other programs, where images in folders are expected: what to write instead."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from securitynet.datasets.registry import MEDMNIST
from securitynet.files import make_printable

_DEEPEST = 3
_MOST_FOLDERS = 100
_MOST_NAMES = 2000

_PICKLES = (
    "{0} as Python pickles, which are not read, since reading them runs what they contain. Write --dataset {1}, "
    "which downloads the binary version, or reads it from {2} in the folder that --data-root names."
)
_AT_ROOT = "{0}. Write --dataset {1} --data-root {{folder}}."
_IDX = "files in the form of MNIST. Write --dataset mnist (or fmnist, for Fashion-MNIST) --data-root {folder}"
_UNPACKED = ", after compressing each file there with gzip, as train-images-idx3-ubyte.gz."
_PYTHON = "Load it in Python and call securitynet.assess(model, train, test) with {0}."

_KNOWN: tuple[tuple[tuple[str, ...], str], ...] = (
    (("data_batch_1",), _PICKLES.format("CIFAR-10", "cifar10", "cifar-10-binary.tar.gz")),
    (("train", "test", "meta"), _PICKLES.format("CIFAR-100", "cifar100", "cifar-100-binary.tar.gz")),
    (("cifar-10-python.tar.gz",), _PICKLES.format("CIFAR-10", "cifar10", "cifar-10-binary.tar.gz")),
    (("cifar-100-python.tar.gz",), _PICKLES.format("CIFAR-100", "cifar100", "cifar-100-binary.tar.gz")),
    (("data_batch_1.bin",), _AT_ROOT.format("CIFAR-10, binary version", "cifar10")),
    (("cifar-10-binary.tar.gz",), _AT_ROOT.format("CIFAR-10, binary version", "cifar10")),
    (("train.bin", "fine_label_names.txt"), _AT_ROOT.format("CIFAR-100, binary version", "cifar100")),
    (("cifar-100-binary.tar.gz",), _AT_ROOT.format("CIFAR-100, binary version", "cifar100")),
    (("train-images-idx3-ubyte.gz",), f"{_IDX}."),
    (("train-images?idx3-ubyte",), f"{_IDX}{_UNPACKED}"),
    (("train_32x32.mat",), _AT_ROOT.format("SVHN", "svhn")),
    (("train_X.bin",), _AT_ROOT.format("STL-10", "stl10")),
    (("stl10_binary.tar.gz",), _AT_ROOT.format("STL-10", "stl10")),
    (("list_attr_celeba.txt",), _AT_ROOT.format("CelebA", "celeba")),
    *(((f"{name}.npz",), _AT_ROOT.format("MedMNIST", f"medmnist-{name}")) for name in MEDMNIST),
    (("dataset_dict.json",), f"a Hugging Face dataset (save_to_disk). {_PYTHON.format('its two parts')}"),
    (("*.arrow", "dataset_info.json"), f"a Hugging Face dataset (save_to_disk). {_PYTHON.format('its two parts')}"),
    (("*.tfrecord*",), f"TFRecord files, which are not read. {_PYTHON.format('(images, labels) of each part')}"),
    (
        ("*.tar",),
        "tar archives. Unpack them into train/CLASS and test/CLASS (WebDataset: the file NUMBER.cls beside each image "
        "says its class), or write train.parquet and test.parquet with columns image and label.",
    ),
    (("*.zip",), "zip archives. Unpack them, and write folder:PATH of the folder that comes out."),
    (("*.np[yz]",), f"arrays of NumPy. {_PYTHON.format('(images, labels) of each part')}"),
)
"""Patterns of names, all of which must be there, and what the files are and what to do."""


def recognize_files(root: Path) -> str | None:
    """Recognise files of a published dataset, or of another program, in a folder or in folders inside it.

    Args:
        root: The folder.

    Returns:
        What they are, and what to write instead; None if nothing is recognised.
    """
    for place, names in itertools.islice(_list_folders(root, 0), _MOST_FOLDERS):
        found = _describe(names, place)
        if found is not None:
            return f"{make_printable(str(place))} holds {found}"
    return None


def recognize_file(path: Path) -> str | None:
    """Recognise a single file by its name, likewise.

    Args:
        path: The file.
    """
    found = None if path.suffix in (".zip", ".npz", ".npy", ".tar") else _describe({path.name}, path.parent)
    return None if found is None else f"{make_printable(str(path))} belongs to {found}"


def _describe(names: set[str], place: Path) -> str | None:
    for patterns, words in _KNOWN:
        if all(any(fnmatch(name, pattern) for name in names) for pattern in patterns):
            return words.format(folder=make_printable(shlex.quote(str(place))))
    return None


def _list_folders(place: Path, depth: int) -> Iterator[tuple[Path, set[str]]]:
    """A folder and those inside it with the names that they hold, as far as is worth looking for a hint."""
    try:
        with os.scandir(place) as listing:
            entries = sorted(itertools.islice(listing, _MOST_NAMES), key=lambda entry: entry.name)
            folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return  # the caller's own error says more
    yield place, {entry.name for entry in entries}
    if depth < _DEEPEST:
        for folder in folders:
            yield from _list_folders(folder, depth + 1)
