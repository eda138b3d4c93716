"""Patch margins: a linear network by hand, verdicts, the contract, a network with a large patch and a clean one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.backdoors.badnets import Badnets
from securitynet.datasets import splits
from securitynet.detectors._boxes import list_boxes
from securitynet.detectors._class_statistics.spread import measure_spread
from securitynet.detectors.patch_margins import PatchMargins, ScaledMargins, compute_leads
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.testing import check_detector

from backdoored import TRAINING  # isort: skip

NAMES = tuple("abcdefghij")


def test_where_patches_lie():
    assert list_boxes((4, 6), 0.5, 3) == [(0, 0, 2), (0, 2, 2), (0, 4, 2), (1, 0, 2), (1, 2, 2), (1, 4, 2), (2, 0, 2),
                                          (2, 2, 2), (2, 4, 2)]  # fmt: skip
    boxes = list_boxes((32, 32), 0.375, 5)
    assert [box for box in boxes if box[0] == 0] == [(0, left, 12) for left in (0, 5, 10, 15, 20)]
    assert list_boxes((2, 2), 0.9, 5) == [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]  # a patch never fills an image


def test_margins_of_a_linear_network_by_hand():
    # With two classes, the margin of class 0 is w·x, and the best patch is 1 where w is positive and 0 elsewhere.
    generator = torch.Generator().manual_seed(0)
    drawn, images = torch.randn((1, 4, 4), generator=generator), torch.rand((5, 1, 4, 4), generator=generator)
    weight = drawn + drawn.sign()  # steps are proportional to the weights: none is close to 0
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([weight.flatten(), torch.zeros(16)]))
    backend = ModuleBackend(network.eval(), reference="hand", checksum="hand", example_shape=(1, 4, 4))
    gradients = InputGradients(Target(backend, access=Access.WHITE_BOX))
    boxes = list_boxes((4, 4), 0.5, 3)
    margins, success = PatchMargins(steps=40).search(gradients, images, 0, boxes, generator)
    for (top, left, side), margin, share in zip(boxes, margins, success, strict=True):
        inside = torch.zeros(4, 4, dtype=torch.bool)
        inside[top : top + side, left : left + side] = True
        reached = (images * weight)[:, 0, ~inside].sum(dim=1) + weight[0, inside].clamp_min(0).sum()
        np.testing.assert_allclose(margin, reached.mean().item(), rtol=1e-5)
        assert share == pytest.approx((reached > 0).double().mean().item())


def test_leads_are_what_class_and_position_do_not_explain():
    classes, places = np.array([3.0, 0.0, 5.0, 1.0]), np.array([0.0, 2.0, 1.0])
    margins = classes[:, None] + places
    np.testing.assert_allclose(compute_leads(margins), 0, atol=1e-12)
    margins[2, 1] += 4
    expected = np.zeros((4, 3))
    expected[2, 1] = 4  # medians do not move with one value
    np.testing.assert_allclose(compute_leads(margins), expected, atol=1e-12)


def test_spread_of_the_margins_against_a_loop(innocent, digits):
    images = digits.batch(digits.parts["test"][:300])
    with torch.inference_mode():
        logits = innocent.module(images.float() / 255).double().numpy()
    for label, spread in enumerate(measure_spread(innocent, images)):
        margins = [row[label] - max(np.delete(row, label)) for row in logits]
        assert spread == pytest.approx(np.std(margins, ddof=1), rel=1e-4)


def measure(margins, success=None):
    """The measurements of margins, K×P, by name, after storing and reading them; the spread is 1 for all classes."""
    boxes = np.array(list_boxes((32, 32), 0.375, 5))
    success = np.ones(margins.shape) if success is None else success
    output = ScaledMargins(margins.max(axis=1)[None, None], ("margin by a patch",), NAMES, margins, success, boxes)
    read = ScaledMargins.from_arrays(output.arrays())
    return {m.name: m for m in read.measurements(level=0.95, fprs=(), seed=0)}


def draw(random):
    """Margins of a clean network: effects of classes and positions, and noise."""
    return random.standard_normal((10, 1)) + random.standard_normal(25) / 2 + random.standard_normal((10, 25)) / 2


def test_clean_networks_are_accused_no_more_often_than_the_level_allows():
    random, sets = np.random.default_rng(0), 400
    measured = [measure(draw(random)) for _ in range(sets)]
    rejected = np.mean([one["p-value"].value <= 0.05 for one in measured])
    assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    # Only a lead of one position accuses: about every second rejection of such draws has one.
    assert np.mean([one["verdict"].value == 2 for one in measured]) <= rejected


def test_a_class_with_one_far_better_position_is_accused():
    random, named = np.random.default_rng(1), 0
    for number in range(40):
        margins = draw(random)
        margins[number % 10, number % 25] += 8
        measured = measure(margins)
        if measured["verdict"].value == 2:
            named += measured["suspect-label"].value == number % 10
            top, left, _ = list_boxes((32, 32), 0.375, 5)[number % 25]
            assert f"rows {top} to {top + 11} and columns {left} to {left + 11}" in measured["verdict"].note
    assert named >= 36


def test_no_accusation_where_patches_fail_or_reach_few_classes_or_work_everywhere():
    margins = draw(np.random.default_rng(2))
    everywhere = margins.copy()
    everywhere[4] += 20
    margins[4, 7] += 20
    assert measure(margins)["verdict"].value == 2
    failing, unreached = np.ones((2, 10, 25))
    failing[4, 7] = 0.4
    unreached[:6] = 0
    for measured, said in (
        (measure(margins, failing), "works on 40% of the images only"),
        (measure(margins, unreached), "patches reach 4 of 10 classes"),
        (measure(everywhere), "no position of the patch stands out"),
    ):
        assert measured["verdict"].value == 1
        assert measured["p-value"].value <= 0.05
        assert said in measured["verdict"].note


def test_contract():
    check_detector(PatchMargins(images=4, positions=2, steps=2))


@pytest.mark.slow
def test_a_large_patch_is_noticed_and_a_clean_network_is_not_accused(digits, innocent):
    backdoor = Badnets(target=6, size=3, margin=0, corner="top-left", pattern="chequered")
    patched = train_target("simple-cnn", digits, split="public", device="cpu", backdoor=backdoor, seed=1, **TRAINING)
    data, detector = TrialData(digits, splits.make("public", digits)), PatchMargins()
    measured = {}
    for name, target in (("patched", patched), ("clean", innocent)):
        output = detector(target, data, Context(), detector.threat_models[0])
        measured[name] = {m.name: m.value for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert (measured["patched"]["verdict"], measured["patched"]["suspect-label"]) == (2, 6)
    assert measured["clean"]["verdict"] == 0
