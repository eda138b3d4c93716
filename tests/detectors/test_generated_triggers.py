"""Triggers made by small networks: the training by hand, the verdict, the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.datasets import splits
from securitynet.detectors._generated_triggers.generators import Generators, train_generators
from securitynet.detectors.generated_triggers import UNREACHED, GeneratedChanges, GeneratedTriggers
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.testing import check_detector


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def make_output(closeness, constancy):
    values = np.stack([closeness, constancy])[:, None]
    return GeneratedChanges(values, ("closeness", "constancy"), tuple("abcdefghij"[: len(closeness)]))


def test_each_class_has_a_network_of_its_own():
    networks = Generators(3, 2, torch.Generator().manual_seed(0))
    images = torch.rand((4, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    before = networks(images)
    assert before.shape == (3, 4, 2, 5, 6)
    with torch.no_grad():
        networks.weights[2][2:4] += 1.0  # the last layer of the second class
    after = networks(images)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_the_smallest_change_of_a_network_that_looks_at_one_pixel():
    # Class 1 wins where the first of 16 pixels is above 1/2, and all images are black: the smallest change is 1/2.
    class First(nn.Module):
        def forward(self, images):
            bright = 20 * (images.flatten(1)[:, 0] - 0.5)
            return torch.stack([-bright, bright], dim=1)

    backend = ModuleBackend(First().eval(), reference="hand", checksum="hand", example_shape=(1, 4, 4))
    target = Target(backend, access=Access.WHITE_BOX)
    images = torch.zeros(8, 1, 4, 4)
    result = train_generators(target, images, images[:4], 2, steps=200, success=0.9, seed=0)
    assert result.norms[0] < 0.05  # they are in class 0 already
    assert 0.5 <= result.norms[1] < 0.8
    assert result.images.shape == (2, 4, 1, 4, 4)
    assert result.images[1, :, 0, 0, 0].min() > 0.5


def test_contract():
    check_detector(GeneratedTriggers(images=8, steps=8))


def test_verdict_follows_the_numbers():
    even = np.arange(10) / 10
    values = measured(make_output(even, even))
    assert values["verdict"].value == 0
    assert "can go unseen" in values["verdict"].note
    near = even.copy()
    near[4] = 6
    values = measured(make_output(near, even))
    assert (values["verdict"].value, values["suspect-label"].value) == (2, 4)
    assert "closeness" in values["verdict"].note
    unreached = near.copy()
    unreached[7] = UNREACHED
    assert measured(make_output(unreached, even))["verdict"].value == 1


def test_without_clean_images_it_is_refused(digits, innocent):
    parts = splits.make("public", digits)
    empty = np.zeros(0, np.int64)
    none = type(parts)("none", parts.members, empty, parts.known_members, empty, empty, empty)
    with pytest.raises(ConfigurationError, match="clean images"):
        GeneratedTriggers().run(innocent, TrialData(digits, none), Context())
