"""What attack networks are fed: exact where posteriors saturate, and the same for models that differ by accident."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from securitynet.attacks.membership._features import (
    Scale,
    encode_one_hot,
    project_gradients,
    rank_gradients,
    rank_values,
    scale_logits,
)
from securitynet.models.targets.gradients import LastLayerGradients, compute_residuals


def layer(count=6, classes=4, inputs=5, bias=True, seed=0):
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=made)
    labels = torch.randint(0, classes, (count,), generator=made)
    embeddings = torch.randn(count, inputs, generator=made)
    return LastLayerGradients(np.arange(count), embeddings, compute_residuals(logits, labels), bias), labels.numpy()


def test_logit_scaled_by_definition_in_fifty_digits():
    logits = np.array([[0.0, 0, 0], [60, 0, -5], [3, 2.5, 2.9], [-80, 10, 9.5]], dtype=np.float32)
    expected = np.empty(logits.shape)
    with localcontext() as context:
        context.prec = 50
        for row, values in enumerate(logits):
            powers = [Decimal(float(value)).exp() for value in values]
            for column, power in enumerate(powers):
                # p / (1 - p), with the sum of the other posteriors as 1 - p
                others = sum(other for number, other in enumerate(powers) if number != column)
                expected[row, column] = float((power / others).ln())
    np.testing.assert_allclose(scale_logits(logits), expected, rtol=1e-6, atol=1e-6)


def test_logit_scaled_tells_apart_what_posteriors_do_not():
    logits = np.array([[30.0, 0, 0], [31, 0, 0], [90, 0, 0]])
    posteriors = torch.from_numpy(logits).float().softmax(dim=1)
    assert (posteriors[:, 0] == 1).all()
    assert len(np.unique(scale_logits(logits)[:, 0])) == 3
    # A probability of 0 arrives as a logit of about -1e37 at worst, and does not overflow what follows.
    extreme = scale_logits(np.array([[0.0, -8e37]]))
    assert np.isfinite(extreme).all() and abs(extreme).max() == 100


def test_ranked_and_one_hot():
    values = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], dtype=np.float32)
    np.testing.assert_array_equal(rank_values(values, 2), np.array([[0.7, 0.2], [0.5, 0.4]], dtype=np.float32))
    assert rank_values(values, 9).shape == (2, 3) and rank_values(values).flags.c_contiguous
    np.testing.assert_array_equal(encode_one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("bias", [True, False])
def test_ranked_gradients_are_the_gradients_in_another_order(bias):
    found, labels = layer(bias=bias)
    gradients = torch.cat(list(found.chunks(6))).numpy()
    made = rank_gradients(found, labels, limit=100)
    assert made.shape == gradients.shape
    np.testing.assert_allclose(np.sort(made, axis=1), np.sort(gradients, axis=1), rtol=1e-5, atol=1e-7)
    # The residual of the label, the only negative one, comes first, on the input of the largest magnitude.
    largest = np.abs(found.embeddings.numpy()).max(axis=1)
    largest = np.maximum(largest, 1) if bias else largest
    own = found.residuals.numpy()[np.arange(6), labels]
    np.testing.assert_allclose(np.abs(made[:, 0]), np.abs(own) * largest, rtol=1e-5)


def test_ranked_gradients_do_not_depend_on_the_order_of_units_and_other_classes():
    found, labels = layer()
    units, classes = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    moved = LastLayerGradients(found.indices, found.embeddings[:, units], found.residuals[:, classes], True)
    renamed = np.argsort(classes.numpy())[labels]
    np.testing.assert_array_equal(rank_gradients(moved, renamed, 100), rank_gradients(found, labels, 100))


@pytest.mark.parametrize("limit", [1, 7, 23, 64, 1000])
def test_gradients_keep_within_their_limit(limit):
    found, labels = layer(classes=40, inputs=50)
    made = torch.Generator().manual_seed(0)
    for values in (rank_gradients(found, labels, limit), project_gradients(found, limit, made)):
        assert values.shape[0] == 6 and limit / 2 <= values.shape[1] <= limit
        assert values.dtype == np.float32 and np.isfinite(values).all()


def test_projections_keep_inner_products():
    found, _ = layer(count=4, classes=30, inputs=40)
    gradients = torch.cat(list(found.chunks(4))).numpy().astype(np.float64)
    exact = gradients @ gradients.T
    np.testing.assert_allclose(
        project_gradients(found, 10**6, torch.Generator()).astype(np.float64), gradients[:, _order(30, 40)], rtol=1e-5
    )
    products = np.zeros((400, 4, 4))
    made = torch.Generator().manual_seed(1)
    for number in range(len(products)):
        projected = project_gradients(found, 200, made).astype(np.float64)
        products[number] = projected @ projected.T
    error = products.std(axis=0) / np.sqrt(len(products))
    assert (np.abs(products.mean(axis=0) - exact) < 4 * error).all()


def _order(classes, inputs):
    """Positions, in weights-then-bias order, of the gradients of each class with its bias after its weights."""
    weights = np.arange(classes * inputs).reshape(classes, inputs)
    return np.concatenate([weights, classes * inputs + np.arange(classes)[:, None]], axis=1).ravel()


def test_scale_comes_from_the_training_records_alone():
    generator = np.random.default_rng(0)
    training = generator.normal(5, 2, (500, 3)).astype(np.float32)
    training[:, 2] = 7  # says nothing, and must not divide by zero
    scale = Scale(training)
    scaled = scale(training).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-5)
    other = scale(np.array([[5, 1e9, 7]], dtype=np.float32)).numpy()
    assert abs(other[0, 0]) < 0.2 and other[0, 1] == 10 and other[0, 2] == 0


def test_compressed_scale_spreads_orders_of_magnitude():
    generator = np.random.default_rng(0)
    values = (10.0 ** generator.uniform(-9, 0, (600, 1)) * generator.choice([-1, 1], (600, 1))).astype(np.float32)
    plain, compressed = Scale(values)(values).numpy(), Scale(values, compress=True)(values).numpy()
    middle = np.abs(values) < 1e-3  # most of them
    assert plain[middle].std() < 0.002
    assert compressed[middle].std() > 0.15
    np.testing.assert_array_equal(np.argsort(compressed[:, 0]), np.argsort(values[:, 0]))
    assert torch.isfinite(Scale(np.zeros((4, 2), np.float32), compress=True)(np.ones((1, 2), np.float32))).all()


@pytest.mark.parametrize("width", [3, 100, 1000])
def test_inputs_of_unit_norm_however_many_they_are(width):
    values = np.random.default_rng(0).normal(7, 3, (400, width)).astype(np.float32)
    norms = Scale(values, unit_norm=True)(values).norm(dim=1)
    assert abs(float(norms.square().mean()) - 1) < 0.01
