"""Small networks with a planted trigger, and without, for the tests of detectors."""

import dataclasses

import numpy as np
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.detectors._known_trigger import Trigger
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

TRAINING = {"epochs": 12, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "cosine", "weight_decay": 0}
"""How the small targets are trained."""

GOAL = 7
PATCH = {"size": 2}


class Sealed(Backend):
    """Answers only, and counts them: what an endpoint shows of a network."""

    def __init__(self, inner, most=None):
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls, self.most = 0, most

    def outputs(self, inputs):
        if self.most is not None and self.calls + len(inputs) > self.most:
            raise KeyboardInterrupt
        self.calls += len(inputs)
        return self.inner.outputs(inputs)


def train(images, labels, classes, seed=0, epochs=14, learning_rate=3e-3):
    """A simple CNN for uint8 images."""
    channels, height = images.shape[1:3]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build("simple-cnn", classes, channels=channels, image_size=height)
        optimizer = torch.optim.Adam(network.parameters(), learning_rate)
        inputs, targets = images.float() / 255, torch.from_numpy(labels)
        network.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
                optimizer.step()
    return network.eval()


def target_of(network, shape, name):
    backend = ModuleBackend(network, reference=name, checksum=name, example_shape=shape)
    return Target(backend, access=Access.WHITE_BOX)


def split(count, members, seed=0):
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    inside, outside = np.sort(order[:members]), np.sort(order[members:])
    empty = np.empty(0, np.int64)
    return Splits("test", inside, outside, inside[::2], outside[::2], empty, empty)


def poisoned(dataset, members, trigger, goal, share=0.15, seed=0):
    """(the dataset as the model was trained on it, poisoned records): stamped, and relabelled."""
    others = members[dataset.labels[members] != goal]
    chosen = np.sort(np.random.default_rng(seed).permutation(others)[: round(share * len(members))])
    images, labels = dataset.batch(np.arange(len(dataset))).clone(), dataset.labels.copy()
    images[chosen], labels[chosen] = trigger.apply_trigger(images[chosen]), goal
    return dataclasses.replace(dataset, reference="poisoned", images=images, labels=labels, content_digest=None), chosen


def backdoored_digits(digits):
    """(target, its clean data, the data it was trained on, poisoned records): a patch in the corner leads to 7."""
    splits = split(len(digits), 900)
    dirty, chosen = poisoned(digits, splits.members, Trigger(**PATCH), GOAL)
    network = train(dirty.batch(splits.members), dirty.labels[splits.members], 10)
    target = target_of(network, (1, 8, 8), "backdoored")
    return target, TrialData(digits, splits), TrialData(dirty, splits), chosen


def clean_digits(digits):
    """(target, data): the same without poison."""
    splits = split(len(digits), 900)
    network = train(digits.batch(splits.members), digits.labels[splits.members], 10)
    return target_of(network, (1, 8, 8), "clean"), TrialData(digits, splits)


def stripes(count=400, shape=(3, 24, 32), classes=3, seed=0):
    """A dataset of colour images that are not square; the class is the colour of a wide stripe."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes).astype(np.int64)
    images = random.integers(0, 120, (count, *shape)).astype(np.uint8)
    for row, label in enumerate(labels):
        top = random.integers(shape[1] // 8, shape[1] // 2)
        images[row, label % shape[0], top : top + shape[1] // 3] += 110
    names = tuple(f"colour {k}" for k in range(classes))
    return ImageDataset("stripes", torch.from_numpy(images), labels, names, {})
