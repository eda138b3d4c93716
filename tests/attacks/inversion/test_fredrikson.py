"""Fredrikson's descent against closed forms and an independent optimiser, and what it does image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn
from torch.nn import functional

from inversion_targets import noise_data, wrapped
from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion.fredrikson import Fredrikson, compute_total_variation
from securitynet.methods.context import Context
from securitynet.models.sources.preprocessing import Preprocessing


def found(attack, target, data, cache=None, seed=0):
    """What the search ends with, without the judge."""
    attacked = AttackedClasses.of(target, data, attack.classes, attack.restarts)
    with attack.search(attacked, data, Context(seed=seed, cache=cache)).carried_out(Context(cache=cache)) as result:
        return result


def orthogonal(classes, size, scale=0.5):
    draws = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(size, classes, generator=draws))[0].T * scale


@pytest.mark.parametrize("objective", ["log-posterior", "posterior"])
def test_direction_on_a_linear_softmax_target(linear, objective):
    """By symmetry, the way up from grey with orthogonal weights of equal length is w_y − the mean of the others."""
    weights = orthogonal(5, 64, scale=16.0)
    bias = -0.5 * weights.sum(dim=1)  # at grey all classes are alike
    data = noise_data(5, (1, 8, 8))
    attack = Fredrikson(start="grey", objective=objective)
    result = found(attack, linear(weights, (1, 8, 8), bias), data)
    moved = result.images.flatten(1) - 0.5
    expected = weights - (weights.sum(dim=0) - weights) / 4
    assert (functional.cosine_similarity(moved, expected) > 0.999).all()
    posterior = (result.images.flatten(1) @ weights.T + bias).softmax(dim=1).diagonal()
    assert (posterior > 0.999).all() and (posterior < 0.9999).all(), "it stops there"


def test_regularised_optimum_is_that_of_an_independent_optimiser(linear):
    """With an L2 prior the optimum is unique: minimise −log p_y(x) + λ‖x − grey‖² for random weights."""
    draws = torch.Generator().manual_seed(0)
    weights, bias = torch.randn(4, 64, generator=draws) * 0.7, torch.randn(4, generator=draws)
    data, l2 = noise_data(4, (1, 8, 8)), 1.0
    result = found(Fredrikson(start="grey", l2=l2, iterations=1000), linear(weights, (1, 8, 8), bias), data)
    w, b = weights.double().numpy(), bias.double().numpy()

    def cost(x, label):
        logits = w @ x + b
        top = logits.max()
        return top + np.log(np.exp(logits - top).sum()) - logits[label] + l2 * ((x - 0.5) ** 2).sum()

    for label in range(4):
        best = optimize.minimize(cost, np.full(64, 0.5), args=(label,), bounds=[(0, 1)] * 64).x
        own = result.images[label].flatten().double().numpy()
        assert np.abs(own - best).max() < 2e-3
        assert np.dot(own - 0.5, best - 0.5) / np.linalg.norm(own - 0.5) / np.linalg.norm(best - 0.5) > 0.999


def test_no_image_depends_on_the_others(linear):
    weights = orthogonal(6, 64, scale=12.0)
    target, data = linear(weights, (1, 8, 8)), noise_data(6, (1, 8, 8))
    together = found(Fredrikson(start="grey", threshold=0.9), target, data)
    assert len(set(together.iterations)) > 1, "each stops on its own"
    for label in (0, 3, 5):
        alone = found(Fredrikson(classes=(label,), start="grey", threshold=0.9), target, data)
        torch.testing.assert_close(alone.images[0], together.images[label], atol=1e-6, rtol=0)
        assert alone.iterations[0] == together.iterations[label]


def test_it_stops_after_patience_where_nothing_can_be_gained():
    class Certain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((2,), 1e-3))

        def forward(self, images):
            # The farther from grey, the less of class 0: at grey nothing can be gained. Class 1 can't be told at all.
            away = ((images - 0.5) ** 2).sum(dim=(1, 2, 3)) + 1e-3 * images.sum(dim=(1, 2, 3))
            return torch.stack([-away * self.weight[0], away * self.weight[1]], dim=1)

    data = noise_data(2, (1, 8, 8))
    result = found(Fredrikson(classes=(0,), start="grey", patience=7), wrapped(Certain(), (1, 8, 8)), data)
    assert 7 <= result.iterations[0] < 3000
    assert (result.images - 0.5).abs().max() < 0.02


def test_iterations_are_bounded_and_the_last_image_is_looked_at(linear):
    target, data = linear(orthogonal(3, 64, scale=1.0), (1, 8, 8)), noise_data(3, (1, 8, 8))
    result = found(Fredrikson(iterations=5, start="grey"), target, data)
    assert (result.iterations == 5).all()
    step = found(Fredrikson(iterations=1, start="grey"), target, data)
    x = torch.full((3, 1, 8, 8), 0.5, requires_grad=True)
    functional.cross_entropy(target.module(x), torch.arange(3), reduction="sum").backward()
    torch.testing.assert_close(step.images, (x - 0.01 * x.grad).detach(), atol=1e-6, rtol=0)


def test_adam_is_torchs(linear):
    target, data = linear(orthogonal(3, 64, scale=2.0), (1, 8, 8)), noise_data(3, (1, 8, 8))
    result = found(Fredrikson(optimizer="adam", iterations=20, start="grey", threshold=0.999999), target, data)
    x = torch.full((3, 1, 8, 8), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([x], 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(target.module(x), torch.arange(3), reduction="sum").backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    torch.testing.assert_close(result.images, x.detach(), atol=1e-5, rtol=0)


def test_starts(linear):
    weights = orthogonal(2, 192)
    shape = (3, 8, 8)
    data = noise_data(2, shape)
    network = linear(weights, shape).backend.module
    constants = Preprocessing(mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))

    def first(preprocessing=None, **options):
        attack = Fredrikson(learning_rate=1e-9, iterations=1, **options)
        return found(attack, wrapped(network, shape, preprocessing=preprocessing), data).images

    torch.testing.assert_close(first(constants)[0, :, 3, 4], torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(first()[0], torch.full(shape, 0.5))
    torch.testing.assert_close(first(start="black")[0], torch.zeros(shape), atol=1e-6, rtol=0)
    noisy = first(start="noise")
    assert float(noisy.min()) >= 0 and float(noisy.max()) <= 1 and 0.2 < float(noisy.std()) < 0.4
    several = first(constants, restarts=3)
    assert len(several) == 6
    torch.testing.assert_close(several[0, 0], torch.full((8, 8), 0.2))
    assert float(several[1].sub(several[0]).std()) == pytest.approx(0.1, rel=0.2)
    assert not torch.equal(several[1], several[2])


def test_total_variation_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    assert float(compute_total_variation(image)) == pytest.approx(0.5 + 0.75 + 1.0 + 0.25)
    assert float(compute_total_variation(torch.ones(1, 3, 4, 4))) == 0.0


def test_total_variation_makes_images_smoother(digits_target, digits_data):
    plain, smooth = (
        found(Fredrikson(iterations=100, total_variation=weight), digits_target, digits_data).images
        for weight in (0.0, 0.02)
    )
    assert compute_total_variation(smooth).mean() < 0.8 * compute_total_variation(plain).mean()


def test_two_hundred_classes_and_colour(linear):
    draws = torch.Generator().manual_seed(0)
    weights = torch.randn(200, 3 * 64 * 64, generator=draws) * 0.05
    data = noise_data(200, (3, 64, 64), each=4)
    result = found(Fredrikson(iterations=60, learning_rate=1.0), linear(weights, (3, 64, 64)), data)
    assert result.images.shape == (200, 3, 64, 64)
    posterior = ((result.images.flatten(1)) @ weights.T).softmax(dim=1).diagonal()
    assert (posterior > 0.99).all()
