"""Small targets with known truth for the contract checks, trained once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

import securitynet.datasets
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

MEMBERS = 120
NULL_RECORDS = 700


@dataclass(frozen=True, eq=False)
class Case:
    """A target on which methods are tried, and its data.

    Attributes:
        target: The target, with white-box access.
        data: Its dataset and splits.
    """

    target: Target
    data: TrialData


class OutputsOnly(Backend):
    """Wraps a backend so that it gives outputs only, like an endpoint, and counts the images.

    Args:
        inner: The backend that computes the outputs.

    Attributes:
        calls: Number of images queried so far.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls = 0

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += len(inputs)
        return self.inner.outputs(inputs)


@cache
def make_overfitted_case() -> Case:
    """Make a small network that has memorised its 120 training digits and misclassifies half of the others.

    Every second member has a wrong label, which can only be memorised, so membership is clearly visible. The adversary
    knows members of both kinds, and holds shadow data with the same share of wrong labels.
    """
    digits = securitynet.datasets.load("digits")
    generator = np.random.default_rng(0)
    order = generator.permutation(len(digits)).astype(np.int64)
    members, non_members = np.sort(order[:MEMBERS]), np.sort(order[MEMBERS : 2 * MEMBERS])
    labels = _mislabel(digits.labels, members[::2], generator)
    target = Target(_memorise(digits, members, labels), access=Access.WHITE_BOX)
    rest = np.setdiff1d(np.arange(len(digits)), np.concatenate([members, non_members]))
    order = np.random.default_rng(2).permutation(rest).astype(np.int64)
    known = np.arange(MEMBERS) % 4 < 2
    shadow_train = np.sort(order[:MEMBERS])
    # Shadow models learn from as many wrong labels as the target: otherwise they would not behave like it.
    labels = _mislabel(labels, shadow_train[::2], np.random.default_rng(3))
    splits = Splits(
        "test",
        members,
        non_members,
        members[known],
        non_members[known],
        shadow_train,
        np.sort(order[MEMBERS : 2 * MEMBERS]),
    )
    dataset = ImageDataset("noisy digits", digits.images, labels, digits.class_names, {})
    return Case(target, TrialData(dataset, splits))


@cache
def make_null_case(seed: int = 1) -> Case:
    """Make a case of the target of `make_overfitted_case` with "members" that it never saw, so the truth is chance.

    Args:
        seed: Seed of the choice of these members.
    """
    case = make_overfitted_case()
    seen = np.concatenate([case.data.splits.members, case.data.splits.non_members])
    rest = np.setdiff1d(np.arange(len(case.data.dataset)), seen)
    order = np.random.default_rng(seed).permutation(rest).astype(np.int64)
    members, non_members = np.sort(order[:NULL_RECORDS]), np.sort(order[NULL_RECORDS : 2 * NULL_RECORDS])
    shadows = order[2 * NULL_RECORDS :]
    half = len(shadows) // 2
    splits = Splits(
        "test",
        members,
        non_members,
        members[::2],
        non_members[::2],
        np.sort(shadows[:half]),
        np.sort(shadows[half:]),
    )
    digits = securitynet.datasets.load("digits")
    dataset = ImageDataset("null digits", digits.images, digits.labels, digits.class_names, {})
    return Case(case.target, TrialData(dataset, splits))


@cache
def make_clean_case() -> Case:
    """Make a network trained on half of the digits without a backdoor, for detectors and defenses."""
    digits = securitynet.datasets.load("digits")
    target = train_target("simple-cnn", digits, split="public", device="cpu", seed=1, epochs=8, learning_rate=0.05)
    return Case(target, TrialData(digits, securitynet.datasets.public(digits)))


def _mislabel(
    labels: NDArray[np.int64], indices: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return a copy of ``labels`` in which those at ``indices`` are wrong."""
    wrong = labels.copy()
    wrong[indices] = (wrong[indices] + 1 + generator.integers(0, 9, len(indices))) % 10
    return wrong


def _memorise(dataset: ImageDataset, members: NDArray[np.int64], labels: NDArray[np.int64]) -> Backend:
    """Train a small network on ``members`` until it has memorised their ``labels``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("simple-cnn", 10, channels=1, image_size=8)
    images, targets = dataset.batch(members).float() / 255, torch.from_numpy(labels[members])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return ModuleBackend(network, reference="arch:simple-cnn", checksum="overfitted", example_shape=(1, 8, 8))
