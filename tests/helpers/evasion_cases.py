"""Small networks that classify digits well, in the shapes that evasion has to take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

EMPTY = np.empty(0, np.int64)


def trained(make, images, labels, seed=0, epochs=25):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make()
        optimizer = torch.optim.Adam(network.parameters(), 2e-2)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(200):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
                optimizer.step()
    return network.eval()


def small(channels=1, classes=10):
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(192, classes),
    )


def white_box(network, name="digits", head="logits", example=(1, 8, 8), precision="fp32"):
    backend = ModuleBackend(
        network, reference=name, checksum=f"{name}-{head}", example_shape=example, precision=precision
    )
    return Target(backend, head=head, access=Access.WHITE_BOX, precision=precision)


def splits_of(count, train=800):
    order = np.random.default_rng(0).permutation(count).astype(np.int64)
    members, others = np.sort(order[:train]), np.sort(order[train:])
    half = len(others) // 2
    return Splits("test", members, others[:half], members[::2], EMPTY, others[half:], EMPTY)


@pytest.fixture(scope="session")
def networks(digits):
    """Two networks trained on the same 800 digits with other weights."""
    splits = splits_of(len(digits))
    images, labels = digits.batch(splits.members).float() / 255, torch.from_numpy(digits.labels[splits.members])
    return [trained(small, images, labels, seed) for seed in (0, 1)]


@pytest.fixture
def target(networks):
    return white_box(networks[0])


@pytest.fixture
def data(digits):
    return TrialData(digits, splits_of(len(digits)))


@pytest.fixture(scope="session")
def surrogates_kept(tmp_path_factory):
    return tmp_path_factory.mktemp("surrogates")


@pytest.fixture
def fresh(tmp_path, surrogates_kept):
    """Makes cache folders in which nothing is known but trained surrogates, so that each is trained once."""

    def folder(name="cache"):
        path = tmp_path / name
        path.mkdir()
        (path / "surrogates").symlink_to(surrogates_kept, target_is_directory=True)
        return path

    return folder


@pytest.fixture
def context(fresh):
    return Context(seed=3, cache=fresh(), device="cpu")


def made_up(target, shape, classes, count=20):
    """Random images of a shape: members of all classes, and non-members labelled by the target, so that it is right."""
    members = max(classes, 20)
    rng = np.random.default_rng(7)
    images = torch.from_numpy(rng.integers(0, 256, (members + count, *shape), dtype=np.uint8))
    labels = np.concatenate([np.arange(members) % classes, target.labels(images[members:]).numpy()])
    names = tuple(f"class {number}" for number in range(classes))
    order = np.arange(members + count, dtype=np.int64)
    splits = Splits("test", order[:members], order[members:], order[:members], EMPTY, order[:members], EMPTY)
    return TrialData(ImageDataset("made up", images, labels.astype(np.int64), names, {}), splits)
