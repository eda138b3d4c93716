"""Small targets and data under inversion, and settings with which the attacks are quick on them."""

from __future__ import annotations

import numpy as np
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

# Another architecture than the target's matters: patterns that fool one network of a kind fool the next one, too.
EVALUATOR = {"architecture": "cifar-resnet20", "recipe": {"epochs": 10}}
GAN = {"steps": 400, "width": 16, "previews": 1}

QUICK = {
    "fredrikson": {"evaluator": EVALUATOR, "iterations": 300},
    "generative": {"evaluator": EVALUATOR, "gan": GAN, "rounds": 150, "restarts": 4},
    "plug-and-play": {
        "evaluator": EVALUATOR,
        "gan": GAN,
        "rounds": 20,
        "pool": 400,
        "restarts": 4,
        "candidates": 6,
    },
}
"""Settings with which an attack works well on the tiny target."""

QUICKEST_EVALUATOR = {"architecture": "simple-cnn", "recipe": {"epochs": 2}}

QUICKEST = {
    "fredrikson": {"evaluator": QUICKEST_EVALUATOR, "iterations": 12},
    "generative": {"evaluator": QUICKEST_EVALUATOR, "gan": {**GAN, "steps": 12}, "rounds": 6, "restarts": 4},
    "plug-and-play": {
        "evaluator": QUICKEST_EVALUATOR,
        "gan": {**GAN, "steps": 12},
        "rounds": 6,
        "pool": 50,
        "restarts": 4,
        "candidates": 6,
    },
}
"""Settings with which it is quicker still, where it matters only that all of it runs."""


CHANCE_EVALUATOR = {"architecture": "simple-cnn", "recipe": {"epochs": 10, "learning_rate": 3e-3}}
"""The judge of attacks on random networks. It may have their architecture: they have learned nothing that fools it."""


def wrapped(module, shape, checksum="test", preprocessing=None) -> Target:
    """A target of a network under white-box access."""
    backend = ModuleBackend(module, reference="test", checksum=checksum, example_shape=shape)
    return Target(backend, preprocessing=preprocessing, access=Access.WHITE_BOX)


def noise_data(num_classes, shape, each=12, seed=0) -> TrialData:
    """Random images with labels in turn, in four parts that each hold all classes, for what needs no meaning."""
    count = num_classes * each
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=draws)
    labels = np.arange(count, dtype=np.int64) % num_classes
    dataset = ImageDataset("noise", images, labels, tuple(map(str, range(num_classes))), {})
    rounds = np.arange(count) // num_classes % 4
    members, non_members, train, test = (np.flatnonzero(rounds == part).astype(np.int64) for part in range(4))
    return TrialData(dataset, Splits("test", members, non_members, members[::2], non_members[::2], train, test))
