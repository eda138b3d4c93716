"""Gradients with respect to images: against autograd one image at a time, for each head, on threads and alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from securitynet.errors import AccessDenied, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.input_gradients import (
    InputGradients,
    compute_cross_entropy,
    compute_margin_loss,
    log_odds,
)
from securitynet.models.targets.target import Target
from securitynet.records import Access


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return make()


def network(channels=3, classes=10, last=None, scale=1.0):
    def make():
        convolution = [nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Tanh()]
        return nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, classes))

    made = seeded(make)
    with torch.no_grad():
        made[-1].weight *= scale
    if last is not None:
        made.append(last)
    return made.eval()


def white_box(module, head="logits", example=None, **options):
    backend = ModuleBackend(module, reference="test", checksum="test", example_shape=example)
    return Target(backend, head=head, access=Access.WHITE_BOX, **options)


def images(count, shape=(3, 16, 16)):
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(5))


def one_by_one(function, inputs, labels):
    """Of each image alone, in double precision."""
    found = []
    for image, label in zip(inputs.double(), labels, strict=True):
        leaf = image[None].requires_grad_()
        function(leaf, label[None]).backward()
        found.append(leaf.grad[0])
    return torch.stack(found)


@pytest.mark.parametrize("loss", [compute_cross_entropy, log_odds, compute_margin_loss])
def test_as_autograd_one_image_at_a_time(loss):
    model, inputs, labels = network(), images(7), torch.tensor([0, 3, 9, 9, 1, 2, 5])
    preprocessing = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    found = InputGradients(white_box(model, preprocessing=preprocessing, example=(3, 16, 16)), loss=loss, part=3)
    taken = found(inputs, labels)
    twin = network().double()
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))

    def by_hand(leaf, label):
        z = twin((leaf - mean) / std)[0]
        if loss is compute_cross_entropy:
            return torch.log(torch.exp(z).sum()) - z[label[0]]
        others = torch.cat([z[: label[0]], z[label[0] + 1 :]])
        return (torch.log(torch.exp(others).sum()) if loss is log_odds else others.max()) - z[label[0]]

    expected = one_by_one(by_hand, inputs, labels)
    torch.testing.assert_close(taken.gradients.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        taken.logits.double(), twin((inputs.double() - mean) / std).detach(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "head, last", [("probabilities", nn.Softmax(dim=1)), ("log-probabilities", nn.LogSoftmax(dim=1))]
)
@pytest.mark.parametrize("loss", [compute_cross_entropy, log_odds])
def test_a_softmax_inside_the_network_changes_nothing(head, last, loss):
    inputs, labels = images(6), torch.arange(6)
    plain = InputGradients(white_box(network()), loss=loss)(inputs, labels).gradients
    inside = InputGradients(white_box(network(last=last), head), loss=loss)(inputs, labels).gradients
    torch.testing.assert_close(inside, plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("head, last", [("logits", None), ("probabilities", nn.Softmax(dim=1))])
def test_log_odds_keep_a_gradient_where_cross_entropy_has_lost_it(head, last):
    inputs = images(40)
    with torch.no_grad():
        logits = network(scale=100.0)(inputs)
    labels = logits.argmax(dim=1)
    gap = logits.max(dim=1).values - logits.topk(2, dim=1).values[:, 1]
    sure = (gap > 20) & (gap < 33)  # double precision can tell the posterior from 1, single can't
    assert sure.sum() >= 5
    target = white_box(network(scale=100.0, last=last), head)
    lost = InputGradients(target)(inputs[sure], labels[sure]).gradients.flatten(1)
    kept = InputGradients(target, loss=log_odds)(inputs[sure], labels[sure]).gradients.flatten(1)
    twin = network(scale=100.0).double()
    exact = one_by_one(lambda x, y: torch.nn.functional.cross_entropy(twin(x), y), inputs[sure], labels[sure]).flatten(
        1
    )

    def alike(first):  # cosine_similarity takes vectors as short as these for nothing
        return (torch.nn.functional.normalize(first.double() * 1e9, dim=1) * unit).sum(dim=1)

    unit = torch.nn.functional.normalize(exact * 1e15, dim=1)
    assert alike(kept).min() > 0.9999, "the direction of the true cross-entropy"
    if head == "logits":  # normalised twice, probabilities keep what 1 - p has lost
        assert alike(lost).min() < 0.99, "which single precision misses"


def test_same_whatever_the_batch_and_the_threads():
    inputs, labels = images(33), torch.arange(33) % 10
    target = white_box(network())
    together = InputGradients(target)(inputs, labels)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        on_threads = InputGradients(target, part=8)(inputs, labels)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(on_threads.gradients, together.gradients, rtol=1e-5, atol=1e-8)
    alone = torch.cat([InputGradients(target)(inputs[i : i + 1], labels[i : i + 1]).gradients for i in range(33)])
    torch.testing.assert_close(alone, together.gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape, classes", [((1, 16, 16), 10), ((3, 12, 20), 200), ((1, 28, 28), 2)])
def test_grey_and_oblong_images_and_many_classes(shape, classes):
    target = white_box(network(shape[0], classes))
    taken = InputGradients(target)(images(3, shape), torch.tensor([0, 1, classes - 1]))
    assert taken.gradients.shape == (3, *shape) and taken.logits.shape == (3, classes)
    assert (taken.gradients.flatten(1).abs().sum(dim=1) > 0).all()


def test_works_under_no_grad_and_inference_mode_and_leaves_no_trace():
    inputs, labels = images(4), torch.arange(4)
    target = white_box(network())
    expected = InputGradients(target)(inputs, labels).gradients
    with torch.no_grad():
        assert torch.equal(InputGradients(target)(inputs, labels).gradients, expected)
    assert not inputs.requires_grad and all(p.grad is None for p in target.module.parameters())
    assert target.query_counter.total == 0, "white-box work asks nothing"


def test_pixels_as_bytes_are_the_same_images():
    pixels = (images(3) * 255).round().to(torch.uint8)
    taken = InputGradients(white_box(network()))
    assert torch.equal(taken(pixels, torch.arange(3)).gradients, taken(pixels.float() / 255, torch.arange(3)).gradients)


def test_clear_errors():
    with pytest.raises(AccessDenied):
        InputGradients(white_box(network()).under(Access.BLACK_BOX))
    with pytest.raises(TargetError, match="10 classes"):
        InputGradients(white_box(network()))(images(1), torch.tensor([10]))

    class Cut(nn.Module):
        def forward(self, inputs):
            return inputs.detach().flatten(1)[:, :4]

    with pytest.raises(TargetError, match="no gradients"):
        InputGradients(white_box(Cut()))(images(1), torch.tensor([0]))
    with pytest.raises(TargetError, match="no gradients for such images"):
        InputGradients(white_box(network()))(images(1, (1, 16, 16)), torch.tensor([0]))


def test_images_that_are_resized_keep_their_own_size():
    target = white_box(network(), preprocessing=Preprocessing(input_size=(24, 24)))
    taken = InputGradients(target)(images(2), torch.tensor([0, 1]))
    assert taken.gradients.shape == (2, 3, 16, 16) and bool((taken.gradients != 0).any())
