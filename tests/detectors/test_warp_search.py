"""Warp search: distortions by hand, the contract, its level, and a network with a warped trigger."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from securitynet.backdoors.warp import Warp
from securitynet.datasets import splits
from securitynet.detectors._warp_search.output import DistortionSizes
from securitynet.detectors._warp_search.search import Rules, distort, search_distortions
from securitynet.detectors.warp_search import WarpSearch, measure_success
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.testing import check_detector

from backdoored import TRAINING  # isort: skip

NAMES = tuple("abcdefghij")


class Centre(nn.Module):
    """Class 1 if the centre of 5×5 pixels is brighter than 0.7; else class 0."""

    def forward(self, images):
        excess = 10 * (images[:, 0, 2, 2] - 0.7)
        return torch.stack([-excess, excess], dim=1)


def wrap(network, shape):
    backend = ModuleBackend(network.eval(), reference="hand", checksum="hand", example_shape=shape)
    return Target(backend, access=Access.WHITE_BOX)


def make_output(sizes, success=0.9):
    sizes = np.atleast_2d(np.asarray(sizes, np.float64))
    count = sizes.shape[1]
    return DistortionSizes(sizes, np.full(count, success), np.zeros((1, 2, 1, 2, 2), np.uint8), NAMES[:count])


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def test_a_distortion_moves_pixels_as_stated():
    image = torch.arange(20.0).view(1, 1, 4, 5) / 20
    right = torch.zeros(1, 2, 3, 3)
    right[:, 0] = 1 / 4  # one of the four steps between five columns
    down = torch.zeros(1, 2, 3, 3)
    down[:, 1] = 2 / 3  # two of the three steps between four rows
    moved = distort(image, torch.cat([right, down]))
    expected_right = image[..., [1, 2, 3, 4, 4]]
    expected_down = image[:, :, [2, 3, 3, 3]]
    torch.testing.assert_close(moved[0], expected_right, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1], expected_down, atol=1e-5, rtol=0)


def test_the_search_moves_brightness_as_little_as_it_must():
    # Brightness grows by 1/8 for each pixel to the right or down, so 0.7 is 1.6 such steps from the centre: at least
    # 0.8 of a pixel along each axis, 0.2 of the side from one edge pixel to the other.
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    images = ((rows + columns) / 8).expand(6, 1, 5, 5)
    target = wrap(Centre(), (1, 5, 5))
    labels = torch.zeros(6, dtype=torch.int64)
    rules = Rules(steps=120, grid=2, reach=0.4, success=0.9)
    found = search_distortions(target, images, labels, 2, rules, seed=0)
    assert found.grids.abs().max() <= 0.4
    assert 0.199 <= float(found.sizes[1]) <= 0.23
    success = measure_success(target, images, labels, found.grids)
    assert np.isnan(success[0])  # no image is of another class than 0
    assert success[1] == 1
    # With a reach of 0.15 it is too far.
    near = search_distortions(target, images, labels, 2, Rules(40, 2, 0.15, 0.9), seed=0)
    assert torch.isinf(near.sizes[1])


def test_the_search_of_a_class_does_not_depend_on_the_others(digits, innocent):
    images, labels = digits.batch(np.arange(20)).float() / 255, torch.as_tensor(digits.labels[:20])
    rules = Rules(steps=3, grid=3, reach=0.2, success=0.1)
    few = search_distortions(innocent, images, labels, 3, rules, seed=4)
    many = search_distortions(innocent, images, labels, 10, rules, seed=4)
    torch.testing.assert_close(few.grids, many.grids[:3], atol=1e-5, rtol=0)


def test_contract():
    check_detector(WarpSearch(steps=8, images=16, restarts=1))


def test_the_verdict_follows_the_numbers():
    usual = [0.1, 0.11, 0.12, 0.09, 0.1, 0.12, 0.13, 0.11, 0.1]
    strong = measured(make_output([*usual, 0.02]))
    assert (strong["verdict"].value, strong["suspect-label"].value) == (2, 9)
    assert "0.18 of the others' median" in strong["verdict"].note
    weak = measured(make_output([*usual, 0.02], success=0.3))
    assert weak["verdict"].value == 1
    assert "often fails on fresh images" in weak["verdict"].note
    even = measured(make_output([*usual, 0.08]))
    assert even["verdict"].value == 0
    assert "differs from image to image" in even["verdict"].note
    few = measured(make_output([0.1, 0.1, *[np.inf] * 8]))
    assert (few["verdict"].value, few["p-value"].value) == (1, None)
    assert "2 of 10 classes" in few["verdict"].note


def test_a_size_from_one_starting_point_only_widens_the_interval():
    sizes = np.tile([0.1, 0.11, 0.12, 0.09, 0.1, 0.12, 0.13, 0.11, 0.1, 0.115], (4, 1))
    sizes[2, 9] = 0.02
    p_value = measured(make_output(sizes))["p-value"]
    assert p_value.value < 0.01
    assert p_value.high > 0.5


def test_outputs_are_stored_and_read():
    output = make_output([0.1, 0.2, np.inf, 0.3])
    again = DistortionSizes.from_arrays(output.arrays())
    np.testing.assert_array_equal(again.sizes, output.sizes)
    assert (again.names, again.galleries()[0].rows) == (output.names, ("Image 1",))


def test_clean_classes_are_rarely_accused():
    # Sizes that vary between classes as lognormal draws do, the null hypothesis of the test.
    random = np.random.default_rng(0)
    sizes = 0.1 * np.exp(random.normal(0, 0.3, (400, 10)))
    accused = [measured(make_output(own))["verdict"].value >= 2 for own in sizes]
    assert np.mean(accused) <= 0.06


def test_a_warped_trigger_is_noticed_and_a_clean_network_is_not_accused(digits, innocent):
    data = TrialData(digits, splits.make("public", digits))
    warp = Warp(target=3, strength=2.0, rate=0.2)
    target = train_target("simple-cnn", digits, split="public", device="cpu", backdoor=warp, seed=1, **TRAINING)
    detector = WarpSearch(restarts=1)
    found = measured(detector(target, data, Context(), detector.threat_models[0]))
    assert (found["verdict"].value, found["suspect-label"].value) == (2, 3)
    clean = measured(detector(innocent, data, Context(), detector.threat_models[0]))
    assert clean["verdict"].value < 2
