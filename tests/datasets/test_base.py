from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from securitynet.datasets import DATASETS, load
from securitynet.datasets.base import Attribute, ImageDataset
from securitynet.errors import ConfigurationError, DatasetError, UnknownName


def dataset(**changes: object) -> ImageDataset:
    fields: dict = {
        "reference": "made",
        "images": torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        "labels": np.array([0, 1, 0, 1]),
        "class_names": ("a", "b"),
        "parts": {"train": np.array([0, 1]), "test": np.array([2, 3])},
    }
    return ImageDataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 0, 2])}, "record 3 has label 2, outside 0 to 1"),
        ({"labels": np.array([0, 1, 0, -1])}, "record 3 has label -1"),
        ({"labels": np.array([0.0, 1.0, 0.0, 1.0])}, "labels of type float64"),
        ({"labels": np.array([0, 1, 0])}, "images of shape"),
        ({"images": None, "labels": np.empty(0, np.int64)}, "has no images"),
        ({"images": torch.zeros(4, 2, 2, 2, dtype=torch.uint8)}, "2 channels"),
        ({"images": torch.zeros(4, 1, 2, 2)}, "torch.float32, not uint8"),
        ({"class_names": ("a", "b", "c")}, "no images of 1 of its 3 classes in its training part: c"),
        ({"labels": np.array([0, 0, 0, 1])}, "in its training part: b"),
        ({"parts": {"train": np.array([0, 1]), "test": np.array([1, 2])}}, "in another part"),
        ({"parts": {"train": np.array([0, 1]), "test": np.array([7])}}, "do not exist"),
        ({"attributes": {"x": Attribute(np.array([0, 1]), ("p", "q"))}}, "2 values for 4 records"),
        ({"attributes": {"x": Attribute(np.array([0, 1, 2, 0]), ("p", "q"))}}, "outside its 2 names"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        dataset(**changes)


def test_fingerprint_covers_all_that_decides_a_result() -> None:
    attribute = Attribute(np.array([0, 1, 0, 1]), ("p", "q"))
    variants = [
        dataset(),
        dataset(images=torch.ones(4, 1, 2, 2, dtype=torch.uint8)),
        dataset(labels=np.array([0, 1, 1, 0])),
        dataset(class_names=("a", "c")),
        dataset(parts={"train": np.array([0, 1, 2]), "test": np.array([3])}),
        dataset(attributes={"x": attribute}),
        dataset(attributes={"x": Attribute(attribute.values, ("p", "r"))}),
        dataset(content_digest="0"),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert dataset(reference="another path").fingerprint == dataset().fingerprint


def test_batches() -> None:
    images = torch.arange(16, dtype=torch.uint8).reshape(4, 1, 2, 2)
    got = list(dataset(images=images).batches(np.array([3, 0, 2]), 2))
    assert [indices.tolist() for indices, _ in got] == [[3, 0], [2]]
    assert torch.equal(torch.cat([batch for _, batch in got]), images[[3, 0, 2]])


def test_batches_of_large_images_are_small() -> None:
    large = dataset(images=torch.zeros(1, 3, 2000, 2000, dtype=torch.uint8).expand(4, -1, -1, -1))  # 12 MB each
    assert [len(batch) for _, batch in large.batches(np.arange(4), 4096)] == [1, 1, 1, 1]
    larger = dataset(images=torch.zeros(1, 3, 3000, 3000, dtype=torch.uint8).expand(4, -1, -1, -1))
    assert [len(batch) for _, batch in larger.batches(np.arange(2), 4096)] == [1, 1]


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        ("digit", {}, UnknownName, "Did you mean digits"),
        ("medmnist-blod", {}, UnknownName, "bloodmnist"),
        ("folder:", {}, ConfigurationError, "names no folder"),
        ("parquet", {}, ConfigurationError, "names no folder"),
        ("digits:somewhere", {}, ConfigurationError, "takes no path"),
        ("digits", {"channels": 4}, ConfigurationError, "1 or 3 channels"),
        ("digits", {"size": 0}, ConfigurationError, "from 1 to 4096"),
        ("digits", {"limit": 0}, ConfigurationError, "at least 1"),
        ("digits", {"limit": 5}, ConfigurationError, "cannot hold all 10 classes"),
        ("folder:/nowhere/at/all", {}, DatasetError, "no folder"),
        ("parquet:/nowhere/at/all", {}, DatasetError, "no folder"),
    ],
)
def test_references_and_options_that_make_no_sense(reference: str, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        load(reference, **options)


def test_every_registered_loader_exists() -> None:
    assert all(callable(DATASETS.get(name)) for name in DATASETS)


def test_listing_datasets_loads_no_torch() -> None:
    code = (
        "import sys; from securitynet.datasets.registry import DATASETS; assert 'cifar10' in DATASETS.names();"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
