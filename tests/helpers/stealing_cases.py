"""A small classifier of digits to steal from, and its records."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.target import Target

FAST = {
    "architecture": "simple-cnn",
    "recipe": {"epochs": 10, "batch_size": 32, "learning_rate": 0.01, "momentum": 0.9},
}


class Sealed(Backend):
    """Answers only, as an endpoint does, and counts what it is asked."""

    def __init__(self, inner):
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls = 0

    def outputs(self, inputs):
        self.calls += len(inputs)
        found = self.inner.outputs(inputs)
        self.num_classes = found.shape[1]
        return found


class Dice(Backend):
    """Answers that have nothing to do with what is to be seen: a hash of the image."""

    def __init__(self):
        self.reference, self.checksum = "dice", "dice"
        self.num_classes = 10

    def outputs(self, inputs):
        weights = torch.linspace(1, 2, inputs[0].numel()).view(1, *inputs.shape[1:])
        seeds = ((inputs * weights * 9973).sum(dim=(1, 2, 3)) * 1000).round().long()
        return torch.stack([torch.randn(10, generator=torch.Generator().manual_seed(int(s))) * 3 for s in seeds])


@pytest.fixture(scope="session")
def digit_data(digits):
    return TrialData(digits, splits.four_way(digits))


@pytest.fixture(scope="session")
def digit_target(digits):
    return train_target(
        "simple-cnn", digits, device="cpu", epochs=15, batch_size=32, learning_rate=0.02, schedule="constant"
    )


@pytest.fixture
def sealed(digit_target):
    return Target(Sealed(digit_target.backend), preprocessing=digit_target.preprocessing)


@pytest.fixture(scope="session")
def elsewhere(digits):
    """Images of another shape and with other classes: digits upside down, larger, in colour."""
    images = digits.images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flip(2).repeat(1, 3, 1, 1)
    parts = {}
    return ImageDataset("elsewhere", images, digits.labels % 3, ("a", "b", "c"), parts)


@pytest.fixture(scope="session")
def all_data(digit_data, elsewhere):
    return dataclasses.replace(digit_data, auxiliary=elsewhere)


def context(cache=None, seed=0, **settings):
    return Context(seed=seed, cache=cache, device="cpu", **settings)


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def lacking(data, label):
    """The same trial for an adversary who knows no record of a class."""
    known = data.splits.known_members
    known = known[data.dataset.labels[known] != label]
    return dataclasses.replace(data, splits=dataclasses.replace(data.splits, known_members=np.sort(known)))
