"""Folders that hold files of published datasets or of other programs are told what to write."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from securitynet.datasets import load
from securitynet.errors import DatasetError

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def hint_for(reference: str) -> str:
    with pytest.raises(DatasetError) as caught:
        load(reference)
    return caught.value.hint or ""


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["data_batch_1", "data_batch_2", "test_batch", "batches.meta"], "--dataset cifar10,"),
        (["cifar-10-batches-py/data_batch_1"], "--dataset cifar10,"),
        (
            ["a/b/cifar-100-python/train", "a/b/cifar-100-python/test", "a/b/cifar-100-python/meta"],
            "--dataset cifar100,",
        ),
        (["data_batch_1.bin"], "--dataset cifar10 --data-root"),
        ([f"{name}.gz" for name in MNIST], "--dataset mnist (or fmnist"),
        ([f"MNIST/raw/{name}" for name in MNIST], "with gzip"),
        ([name.replace("-idx", ".idx") for name in MNIST], "with gzip"),
        (["train_32x32.mat", "test_32x32.mat"], "--dataset svhn --data-root"),
        (["pathmnist.npz"], "--dataset medmnist-pathmnist --data-root"),
        (["dataset_dict.json", "train/data-0.arrow", "test/data-0.arrow"], "Hugging Face dataset"),
        (["train-000000.tar", "train-000001.tar"], "WebDataset"),
        (["train.npz"], "arrays of NumPy"),
    ],
)
def test_known_files(tmp_path: Path, names: list[str], words: str) -> None:
    touch(tmp_path, *names)
    assert words in hint_for(f"folder:{tmp_path}")
    assert words in hint_for(f"parquet:{tmp_path}")
    if not (tmp_path / "train").is_dir():
        assert words in hint_for(str(tmp_path))


def test_a_single_file_is_known_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "data_batch_1", "holiday.zip")
    assert "--dataset cifar10," in hint_for(str(tmp_path / "data_batch_1"))
    assert "Unpack it" in hint_for(str(tmp_path / "holiday.zip"))


@pytest.mark.parametrize("scheme", ["folder", "parquet"])
def test_a_file_in_place_of_a_folder(tmp_path: Path, scheme: str) -> None:
    touch(tmp_path, "photos.zip", "train.parquet")
    assert "Unpack it" in hint_for(f"{scheme}:{tmp_path / 'photos.zip'}")
    assert hint_for(f"{scheme}:{tmp_path / 'train.parquet'}").startswith(f"Write parquet:{tmp_path}:")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("file:///data/my%20photos", "Write folder:/data/my photos."),
        ("folder:file:///data/photos", "Write folder:/data/photos."),
        ("parquet:file:/data/tables", "Write parquet:/data/tables."),
        ("https://example.org/photos.zip", "Download it"),
        ("hf:owner/name", "datasets.load_dataset"),
    ],
)
def test_addresses_are_told_what_to_write(reference: str, words: str) -> None:
    assert words in hint_for(reference)


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    assert "train/CLASS" in hint_for(f"folder:{tmp_path}")
    assert hint_for(str(tmp_path)) == f"Write folder:{tmp_path}."


def test_the_remedy_for_unpacked_files_works(tmp_path: Path) -> None:
    """MNIST as torchvision leaves it, compressed again."""
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    for name, array in zip(MNIST, (images, labels, images, labels), strict=True):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        (tmp_path / name).write_bytes(header + array.tobytes())
    assert f"--dataset mnist (or fmnist, for Fashion-MNIST) --data-root {tmp_path}" in hint_for(f"folder:{tmp_path}")
    for name in MNIST:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    dataset = load("mnist", root=tmp_path)
    assert np.array_equal(dataset.images[:20, 0].numpy(), images) and dataset.labels[:20].tolist() == labels.tolist()
