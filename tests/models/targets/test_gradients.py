"""Per-sample gradients of the last layer, against autograd one sample at a time, and against torch.func."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from securitynet.errors import AccessDenied, ModelError
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.gradients import capture_last_layer, compute_last_layer_gradients, compute_residuals
from securitynet.models.targets.target import Target
from securitynet.records import Access


def white_box(network, head="logits"):
    backend = ModuleBackend(network, reference="test", checksum="test", example_shape=None)
    return Target(backend, head=head, access=Access.WHITE_BOX)


def network(bias=True):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10, bias=bias))


@pytest.mark.parametrize("bias", [True, False])
def test_as_autograd_one_sample_at_a_time(digits, bias):
    model = network(bias)
    records = np.array([5, 900, 17, 3, 1200])
    found = capture_last_layer(white_box(model), digits, records)
    gradients = torch.cat(list(found.chunks(2)))
    assert gradients.shape == (5, found.length) and found.bias is bias
    for row, record in zip(gradients, records, strict=True):
        model.zero_grad()  # otherwise the gradients of earlier samples would add up
        image = digits.batch(np.array([record])).float() / 255
        nn.functional.cross_entropy(model(image), torch.tensor([digits.labels[record]])).backward()
        expected = [parameter.grad.flatten() for parameter in model[3].parameters()]
        torch.testing.assert_close(row, torch.cat(expected), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.norms(), gradients.norm(dim=1), rtol=1e-4, atol=1e-7)


def test_as_torch_func(digits):
    model = network()
    records = np.arange(40)
    images, labels = digits.batch(records).float() / 255, torch.from_numpy(digits.labels[records])
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(last, image, label):
        logits = functional_call(model, {**weights, **last}, (image[None],))
        return nn.functional.cross_entropy(logits, label[None])

    last = {name: weights[name] for name in ("3.weight", "3.bias")}
    expected = vmap(grad(loss), in_dims=(None, 0, 0))(last, images, labels)
    found = capture_last_layer(white_box(model), digits, records)
    gradients = compute_last_layer_gradients(found.residuals, found.embeddings)
    flat = torch.cat([expected["3.weight"].flatten(1), expected["3.bias"]], dim=1)
    torch.testing.assert_close(gradients, flat, rtol=1e-4, atol=1e-6)


def test_heads_that_emit_probabilities_have_the_same_gradients(digits):
    model = network()
    records = np.arange(20)
    plain = capture_last_layer(white_box(model), digits, records)
    softened = capture_last_layer(white_box(nn.Sequential(model, nn.Softmax(dim=1)), "probabilities"), digits, records)
    torch.testing.assert_close(softened.residuals, plain.residuals, rtol=1e-3, atol=1e-6)


def test_residuals_keep_what_a_subtraction_loses():
    found = compute_residuals(torch.tensor([[40.0, 0.0, 0.0]]), torch.tensor([0]))
    np.testing.assert_allclose(found, [[-2 * np.exp(-40.0), np.exp(-40.0), np.exp(-40.0)]], rtol=1e-5)


def test_what_has_no_such_gradient_is_refused(digits):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            return 3 * self.inner(images)

    with pytest.raises(ModelError, match="does not end in a linear layer"):
        capture_last_layer(white_box(Scaled()), digits, np.arange(4))
    convolution = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(ModelError, match="no linear layer"):
        capture_last_layer(white_box(convolution), digits, np.arange(4))
    with pytest.raises(AccessDenied):
        capture_last_layer(white_box(network()).under(Access.BLACK_BOX), digits, np.arange(4))
