"""The attribute attack's controls: random weights, pixels, and the interval of the difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.attacks.attribute._random_network import draw_weights, randomise, take_pixels
from securitynet.attacks.attribute.base import Inferred, InferredAttributes
from securitynet.metrics.attribute import compare_with_controls
from securitynet.records import Access


def test_random_weights_keep_the_size_of_activations_and_untrain_batch_norms():
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(7.0)
        network[1].running_mean.fill_(5.0)
    draw_weights(network, 0)
    assert float(network[1].running_mean.abs().max()) == 0 and float((network[1].running_var - 1).abs().max()) == 0
    assert float(network[0].bias.abs().max()) == 0
    outputs = network(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert 0.2 < float(outputs.std()) < 3
    first = network[0].weight.clone()
    draw_weights(network, 0)
    assert torch.equal(first, network[0].weight)
    draw_weights(network, 1)
    assert not torch.equal(first, network[0].weight)


def test_the_target_itself_is_not_touched_and_not_queried(overfitted, digits):
    target = overfitted[0].under(Access.WHITE_BOX)
    images = digits.batch(np.arange(20, dtype=np.int64))
    before, count = target.embeddings(images), target.query_counter.total
    random = randomise(target, 0)
    assert random.backend.checksum != target.backend.checksum
    assert not torch.allclose(random.embeddings(images), before, atol=0.1)
    assert target.query_counter.total == count
    assert torch.equal(target.embeddings(images), before)


def test_pixels_are_the_images_averaged(digits):
    assert take_pixels(digits, np.arange(3, dtype=np.int64)).shape == (3, 64)


def test_differences_are_those_of_the_rates_and_wider_for_networks_that_disagree():
    truth = np.ones(400, dtype=np.int64)
    predicted, baseline = truth.copy(), truth.copy()
    predicted[:80], baseline[:200] = 0, 0
    alike = np.stack([predicted, predicted, predicted])
    found = {m.name: m for m in compare_with_controls(truth, predicted, baseline, random=alike, pixels=predicted)}
    assert found["random-gain"].value == pytest.approx(0.3)
    assert found["gain-over-random"].value == pytest.approx(0) and found["gain-over-pixels"].value == 0
    spread = alike.copy()
    spread[0], spread[1] = 1, 0
    again = {m.name: m for m in compare_with_controls(truth, predicted, baseline, random=spread, pixels=None)}
    assert again["gain-over-random"].value == pytest.approx(0.8 - (1 + 0 + 0.8) / 3)
    width = found["gain-over-random"].high - found["gain-over-random"].low
    assert again["gain-over-random"].high - again["gain-over-random"].low > width


def test_a_useless_training_is_seldom_blamed():
    random = np.random.default_rng(0)
    truth, blamed = np.ones(300, dtype=np.int64), 0
    for _ in range(200):
        rates = 0.7 + 0.03 * random.normal(size=4)  # networks differ, the trained one is one of them
        easy = random.random(300)
        said = [((0.5 * easy + 0.5 * random.random(300)) > 1 - rate).astype(np.int64) for rate in rates]
        measured = compare_with_controls(truth, said[0], 0 * truth, random=np.stack(said[1:]), pixels=None)
        blamed += next(m.low for m in measured if m.name == "gain-over-random") > 0
    assert blamed <= 12


def test_outputs_of_earlier_versions_have_no_controls():
    values = np.zeros(10, dtype=np.int64)
    one = Inferred("slant", ("left", "right"), np.arange(10), values, values, values, values)
    arrays = {k: v for k, v in InferredAttributes((one,)).arrays().items() if not k.endswith((".random", ".pixels"))}
    read = InferredAttributes.from_arrays(arrays)
    names = {m.name for m in read.measurements(level=0.95, fprs=(), seed=0)}
    assert "slant.gain" in names and "slant.gain-over-random" not in names
    assert len(read.without(np.array([1, 2])).attributes[0].truth) == 8
