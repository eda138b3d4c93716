from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dataset_files import idx, noise
from securitynet.datasets import arrays, load
from securitynet.datasets.download import RemoteFile
from securitynet.errors import DatasetError, MissingExtra

NAMES = [f"class {number}" for number in range(10)]


def write_cifar(folder: Path, files: list[str], *, classes: int, coarse: bool) -> tuple[np.ndarray, np.ndarray]:
    """Records as Krizhevsky describes them: label byte(s), then 1,024 red, green and blue values, row by row."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = noise(classes * len(files), 3, 32, 32), np.tile(np.arange(classes), len(files))
    for number, name in enumerate(files):
        content = bytearray()
        for position in range(number * classes, (number + 1) * classes):
            content += bytes([3, labels[position]]) if coarse else bytes([labels[position]])
            content += images[position].tobytes()
        (folder / name).write_bytes(bytes(content))
    return images, labels


def write_cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    written = write_cifar(folder, files, classes=10, coarse=False)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return written


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10(inner: str, tmp_path: Path) -> None:
    images, labels = write_cifar10(tmp_path / inner)
    dataset = load("cifar10", root=tmp_path)
    assert np.array_equal(dataset.images.numpy(), images)
    assert np.array_equal(dataset.labels, labels)
    assert dataset.class_names == tuple(NAMES)
    assert {part: len(indices) for part, indices in dataset.parts.items()} == {"train": 50, "test": 10}


def test_the_default_root_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURITYNET_DATA", str(tmp_path))
    write_cifar10(tmp_path / "datasets/cifar10")
    assert len(load("cifar10")) == 60


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    images, labels = write_cifar(tmp_path, ["train.bin", "test.bin"], classes=100, coarse=True)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine {number}" for number in range(100)))
    dataset = load("cifar100", root=tmp_path)
    assert np.array_equal(dataset.images.numpy(), images)
    assert np.array_equal(dataset.labels, labels)
    assert dataset.class_names[99] == "fine 99"


def test_damaged_cifar_files(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    batch = tmp_path / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match=r"data_batch_3.bin has 30729 bytes.*cut off"):
        load("cifar10", root=tmp_path)
    batch.write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(DatasetError, match="record 20 has label 10"):
        load("cifar10", root=tmp_path)
    batch.unlink()
    with pytest.raises(DatasetError, match=r"data_batch_3.bin cannot be read"):
        load("cifar10", root=tmp_path)
    batch.write_bytes(whole)
    (tmp_path / "batches.meta.txt").write_text("a\nb\n")
    with pytest.raises(DatasetError, match="names 2 classes instead of 10"):
        load("cifar10", root=tmp_path)


def test_cifar_is_unpacked_from_its_archive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = write_cifar10(tmp_path / "made/cifar-10-batches-bin")
    root = tmp_path / "root"
    root.mkdir()
    archive = root / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        stream.add(tmp_path / "made/cifar-10-batches-bin", "cifar-10-batches-bin")
    with pytest.raises(DatasetError, match="is not the published file"):
        load("cifar10", root=root)
    checksum = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    monkeypatch.setitem(arrays.FILES, "cifar10", RemoteFile("http://127.0.0.1:9/", archive.name, checksum))
    assert np.array_equal(load("cifar10", root=root).images.numpy(), images)
    archive.unlink()
    assert len(load("cifar10", root=root)) == 60


def test_svhn(tmp_path: Path) -> None:
    images = noise(30, 3, 32, 32)
    stored = np.tile(np.arange(1, 11), 3).astype(np.uint8)
    for name, start, stop in (("train", 0, 20), ("test", 20, 30)):
        values = {"X": images[start:stop].transpose(2, 3, 1, 0), "y": stored[start:stop, None]}
        savemat(tmp_path / f"{name}_32x32.mat", values, do_compression=True)
    dataset = load("svhn", root=tmp_path)
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 3
    assert load("svhn", root=tmp_path, channels=1, size=28).image_shape == (1, 28, 28)
    (tmp_path / "test_32x32.mat").write_bytes(b"junk" * 99)
    with pytest.raises(DatasetError, match=r"test_32x32.mat is not a readable MATLAB file"):
        load("svhn", root=tmp_path)


def test_stl10_images_are_stored_column_by_column(tmp_path: Path) -> None:
    images = noise(20, 3, 96, 96)
    for part, start in (("train", 0), ("test", 10)):
        (tmp_path / f"{part}_X.bin").write_bytes(images[start : start + 10].transpose(0, 1, 3, 2).tobytes())
        (tmp_path / f"{part}_y.bin").write_bytes(bytes(range(1, 11)))
    (tmp_path / "class_names.txt").write_text("\n".join(NAMES))
    dataset = load("stl10", root=tmp_path)
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == list(range(10)) * 2
    (tmp_path / "test_y.bin").write_bytes(bytes(range(1, 10)))
    with pytest.raises(DatasetError, match=r"test_X.bin has 276480 bytes; its labels call for 248832"):
        load("stl10", root=tmp_path)


def test_mnist_and_fashion_mnist(tmp_path: Path) -> None:
    images, labels = noise(30, 1, 28, 28), np.tile(np.arange(10), 3).astype(np.uint8)
    for name, chosen in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images[chosen, 0]))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(labels[chosen]))
    dataset = load("fmnist", root=tmp_path)
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.class_names[9] == "Ankle boot"
    digits = load("mnist", root=tmp_path)
    assert np.array_equal(digits.images.numpy(), images)
    assert digits.class_names == tuple("0123456789")
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    for content, message in (
        (idx(labels[20:29]), "for 9 labels"),
        (idx(images[20:30, 0]), "not an IDX file of bytes with 1 dimensions"),
        (idx(labels[20:30])[:-9], "is damaged"),
        (gzip.compress(gzip.decompress(idx(labels[20:30]))[:-1]), r"holds 9 values; its header says \(10,\)"),
        (b"junk", "is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            load("fmnist", root=tmp_path)


def write_medmnist(path: Path, shape: tuple[int, ...], classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}
    for part, rounds in (("train", 3), ("val", 1), ("test", 2)):
        values[f"{part}_images"] = rng.integers(0, 256, (rounds * classes, *shape), dtype=np.uint8)
        values[f"{part}_labels"] = np.tile(np.arange(classes), rounds)[:, None].astype(np.uint8)
    np.savez_compressed(path, **values)
    return values


@pytest.mark.parametrize(
    ("name", "classes", "shape"), [("medmnist-bloodmnist", 8, (28, 28, 3)), ("medmnist-breast", 2, (28, 28))]
)
def test_medmnist(name: str, classes: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("medmnist")
    flag = name.removeprefix("medmnist-").removesuffix("mnist") + "mnist"
    values = write_medmnist(tmp_path / f"{flag}.npz", shape, classes)
    dataset = load(name, root=tmp_path)
    assert {part: len(indices) for part, indices in dataset.parts.items()} == {
        "train": 3 * classes,
        "test": 2 * classes,
        "validation": classes,
    }
    test = values["test_images"].reshape(2 * classes, 28, 28, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.batch(dataset.parts["test"]).numpy(), test)
    assert len(dataset.class_names) == classes


def test_medmnist_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("medmnist")
    with pytest.raises(DatasetError, match="several labels per image"):
        load("medmnist-chestmnist", root=tmp_path)
    (tmp_path / "bloodmnist.npz").write_bytes(b"PK junk")
    with pytest.raises(DatasetError, match=r"bloodmnist.npz: train_labels cannot be read"):
        load("medmnist-bloodmnist", root=tmp_path)
    write_medmnist(tmp_path / "bloodmnist.npz", (28, 28, 3), 7)
    with pytest.raises(DatasetError, match="no images of 1 of its 8 classes"):
        load("medmnist-bloodmnist", root=tmp_path)
    objects = io.BytesIO()
    np.savez(objects, train_labels=np.array([print], dtype=object))
    (tmp_path / "bloodmnist.npz").write_bytes(objects.getvalue())
    with pytest.raises(DatasetError, match="cannot be read: Object arrays cannot be loaded"):
        load("medmnist-bloodmnist", root=tmp_path)
    monkeypatch.setitem(sys.modules, "medmnist.info", None)
    with pytest.raises(MissingExtra, match=r"securitynet\[medmnist\]"):
        load("medmnist-bloodmnist", root=tmp_path)
