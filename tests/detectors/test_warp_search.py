"""Warp search: distortions by hand, the contract, its level, and a network with a warped trigger."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from securitynet.backdoors.warp import Warp
from securitynet.datasets import splits
from securitynet.detectors._warp_search.search import Rules, distort, search_distortions
from securitynet.detectors.warp_search import DistortionSuccess, WarpSearch, compute_log_odds, count_hits
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


def make_output(hits, total=100):
    hits = np.asarray(hits)
    totals = np.full(hits.shape, total)
    return DistortionSuccess(
        compute_log_odds(hits, totals)[None],
        ("success of a distortion",),
        NAMES[: hits.shape[1]],
        hits / totals,
        np.zeros((1, 2, 1, 2, 2), np.uint8),
    )


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


def test_the_search_moves_brightness_to_where_the_network_looks():
    # Brightness grows by 1/8 for each pixel to the right or down, so 0.7 is 1.6 such steps from the centre.
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    images = ((rows + columns) / 8).expand(6, 1, 5, 5)
    target = wrap(Centre(), (1, 5, 5))
    labels = torch.zeros(6, dtype=torch.int64)
    grids = search_distortions(target, images, labels, 2, Rules(steps=60, batch=6, grid=3, reach=0.3), seed=0)
    assert grids.abs().max() <= 0.3
    hits, totals = count_hits(target, images, labels, grids)
    assert hits.tolist() == [0, 6]
    assert totals.tolist() == [0, 6]  # no image is of another class than 0
    # With a reach of 0.1, less than one step in all, it is too far.
    near = search_distortions(target, images, labels, 2, Rules(steps=60, batch=6, grid=3, reach=0.1), seed=0)
    assert count_hits(target, images, labels, near)[0].tolist() == [0, 0]


def test_the_search_of_a_class_does_not_depend_on_the_others(digits, innocent):
    images, labels = digits.batch(np.arange(20)).float() / 255, torch.as_tensor(digits.labels[:20])
    rules = Rules(steps=3, batch=5, grid=3, reach=0.2)
    few = search_distortions(innocent, images, labels, 3, rules, seed=4)
    many = search_distortions(innocent, images, labels, 10, rules, seed=4)
    torch.testing.assert_close(few, many[:3], atol=1e-5, rtol=0)


def test_log_odds_by_hand():
    np.testing.assert_allclose(
        compute_log_odds(np.array([0, 10, 5]), np.array([10, 10, 10])), [-np.log(21), np.log(21), 0], atol=1e-12
    )


def test_contract():
    check_detector(WarpSearch(steps=2, images=16, restarts=1))


def test_the_verdict_needs_a_distortion_that_works():
    hits = np.array([[10, 12, 9, 11, 10, 12, 8, 11, 10, 96]])
    strong = measured(make_output(hits))
    assert (strong["verdict"].value, strong["suspect-label"].value) == (2, 9)
    assert strong["fresh-success"].value == 0.96
    hits[0, 9] = 45
    weak = measured(make_output(hits))
    assert weak["p-value"].value < 0.05
    assert weak["verdict"].value == 1
    assert "only from 45% of fresh images" in weak["verdict"].note
    even = measured(make_output(np.arange(10, 20)[None]))
    assert even["verdict"].value == 0
    assert "distortion that differs from image to image" in even["verdict"].note


def test_outputs_are_stored_and_read():
    output = make_output([[10, 20, 30, 40]])
    again = DistortionSuccess.from_arrays(output.arrays())
    np.testing.assert_array_equal(again.success, output.success)
    assert (again.names, again.galleries()[0].rows) == (output.names, ("Image 1",))


def test_clean_classes_are_rarely_accused():
    # Classes differ in how easily a distortion reaches them; 200 fresh images.
    random = np.random.default_rng(0)
    accused = 0
    for _ in range(400):
        shares = 1 / (1 + np.exp(-random.normal(-0.5, 1.0, (1, 10))))
        accused += measured(make_output(random.binomial(200, shares), 200))["verdict"].value >= 2
    assert accused / 400 <= 0.07


def test_a_warped_trigger_is_noticed_and_a_clean_network_is_not_accused(digits, innocent):
    data = TrialData(digits, splits.make("public", digits))
    warp = Warp(target=3, strength=2.0, rate=0.2)
    target = train_target("simple-cnn", digits, split="public", device="cpu", backdoor=warp, seed=1, **TRAINING)
    detector = WarpSearch(images=120, restarts=1)
    found = measured(detector(target, data, Context(), detector.threat_models[0]))
    assert (found["verdict"].value, found["suspect-label"].value) == (2, 3)
    clean = measured(detector(innocent, data, Context(), detector.threat_models[0]))
    assert clean["verdict"].value < 2
