"""Defenses that repair trained models, against values worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.defenses import DEFENSES, _repair
from securitynet.defenses._repair import ReconstructedTrigger, RepairTask, fine_tune, list_neurons
from securitynet.defenses.base import make_output_defense, make_repair, make_training_defense
from securitynet.defenses.fine_pruning import FinePruning, _measure_activations
from securitynet.defenses.i_bau import IBau, compute_implicit_gradient
from securitynet.defenses.unlearning import Unlearning
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.targets.neuron_factors import NeuronFactors

REPAIRS = ("anp", "fine-pruning", "i-bau", "unlearning")


def small_task(network=None, count=48, **fields):
    """Images of 4×4 pixels whose class is that of the brighter half."""
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = (images[:, 0, :2].float().mean(dim=(1, 2)) > images[:, 0, 2:].float().mean(dim=(1, 2))).long()
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)
            )
    return RepairTask(network.eval(), images, labels, **fields)


def test_all_are_registered_as_repairs():
    assert {name for name in DEFENSES if DEFENSES.get(name).stage == "repair"} == set(REPAIRS)
    for name in REPAIRS:
        with pytest.raises(ConfigurationError, match=name) as refused:
            make_output_defense(name, {})
        assert "securitynet repair" in str(refused.value.hint)
        with pytest.raises(ConfigurationError, match=name):
            make_training_defense(name)
    with pytest.raises(ConfigurationError, match="does not repair"):
        make_repair("dropout", {})


def test_a_reconstructed_trigger_is_blended_by_its_mask():
    mask = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
    trigger = ReconstructedTrigger(1, mask, torch.full((1, 2, 2), 0.8))
    applied = trigger.apply(torch.full((3, 1, 2, 2), 0.4))
    torch.testing.assert_close(applied, torch.tensor([[0.4, 0.8], [0.5, 0.6]]).expand(3, 1, 2, 2))


def test_the_implicit_gradient_is_that_of_the_solved_inner_problem():
    """inner = a/2 δ² - w δ is smallest at δ* = w/a; outer = (w + 3 δ)² becomes w² (1 + 3/a)²."""
    a, w = 2.0, torch.tensor([1.5], requires_grad=True)
    delta = (w.detach() / a).requires_grad_()

    def inner(value):
        return (a / 2 * value.square() - w * value).sum()

    def gradient(iterations):
        outer = (w + 3 * delta).square().sum()
        return compute_implicit_gradient(outer, inner, delta, [w], iterations=iterations, learning_rate=0.25)[0].item()

    assert gradient(60) == pytest.approx(2 * 1.5 * (1 + 3 / a) ** 2, rel=1e-5)
    assert gradient(0) == pytest.approx(2 * (1.5 + 3 * 0.75), rel=1e-6)  # with δ held constant


def test_the_perturbation_of_i_bau_raises_the_loss_within_its_budget():
    task = small_task()
    fine_tune(task, epochs=10, learning_rate=0.05, batch_size=16)
    delta = IBau(budget=0.3).find_perturbation(task, 0)
    assert delta.norm() <= 0.3 * 4 + 1e-5  # 16 pixels
    images, labels = task.batch(torch.arange(48))

    def loss(perturbation):
        return functional.cross_entropy(task.logits((images + perturbation).clamp(0, 1)), labels).item()

    noise = torch.randn(delta.shape, generator=torch.Generator().manual_seed(1))
    assert loss(delta) > loss(noise / noise.norm() * delta.norm()) and loss(delta) > loss(0 * delta)


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(2)])
def test_factors_of_neurons_are_factors_of_weights(layer):
    """Equation 3 of ANP: scaling an output is scaling its weights by m + δ and its bias by 1 + ξ."""
    layer = copy.deepcopy(layer).eval()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    images, expected = torch.rand(2, 2, 5, 5), copy.deepcopy(layer)
    factors = NeuronFactors(layer, torch.device("cpu"))
    with torch.no_grad():
        factors.mask *= 0.7
    factors.randomise(0.4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scale = (factors.mask + factors.delta).view(-1, *(1,) * (expected.weight.ndim - 1))
        expected.weight *= scale
        if expected.bias is not None:
            expected.bias *= 1 + factors.xi
    torch.testing.assert_close(layer(images), expected(images))


def test_fine_pruning_removes_silent_channels_and_keeps_them_silent():
    task = small_task()
    convolution, norm = task.network[0], task.network[1]
    with torch.no_grad():
        norm.bias[[1, 4]] = -50.0  # ReLU lets nothing through
    activations = _measure_activations(task, norm)
    assert not activations[[1, 4]].any() and activations.max() > 0
    (note,) = FinePruning(epochs=2, tolerance=0.0).repair(task)
    for tensor in (convolution.weight, convolution.bias, norm.weight, norm.bias):
        assert not tensor[[1, 4]].any()
    assert "of 6 channels" in note


def test_unlearning_shows_a_share_of_the_images_with_a_trigger_and_all_with_their_labels():
    mask = torch.zeros(4, 4)
    mask[:, 3] = 1
    triggers = tuple(ReconstructedTrigger(label, mask, torch.full((1, 4, 4), 0.5 + label / 2)) for label in (0, 1))
    task = small_task(count=500, triggers=triggers)
    shown = []
    task.network.register_forward_hook(
        lambda network, inputs, _output: shown.append(inputs[0].detach()) if network.training else None
    )
    (note,) = Unlearning(epochs=1, share=0.6).repair(task)
    rows = torch.cat(task.batches(64, "fine-tuning", 0, task.hold_out()[1]))
    images, _ = task.batch(rows)
    seen = torch.cat(shown)[-len(rows) :]  # in the last training, should a learning rate have been refused
    same = (seen == images).flatten(1).all(dim=1)
    by_trigger = [(seen == trigger.apply(images)).flatten(1).all(dim=1) for trigger in triggers]
    assert bool((same | by_trigger[0] | by_trigger[1]).all())
    assert same.float().mean().item() == pytest.approx(0.4, abs=0.08)  # three standard deviations
    assert by_trigger[0].float().mean().item() == pytest.approx(0.3, abs=0.08)
    assert "classes 0, 1" in note
    with pytest.raises(ConfigurationError, match="none to unlearn"):
        Unlearning().repair(small_task())


def test_networks_that_a_defense_does_not_fit_and_divergence_are_reported():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert list_neurons(linear) == []
    with pytest.raises(ModelError, match="hidden layer"):
        make_repair("anp", {}).repair(small_task(linear))
    with pytest.raises(ModelError, match="convolution"):
        FinePruning().repair(small_task(linear))
    with pytest.raises(ModelError, match="diverged"):
        fine_tune(small_task(), epochs=9, learning_rate=1e30, batch_size=16)


def test_a_learning_rate_that_breaks_the_network_is_divided(monkeypatch):
    """The trainings with the first two rates are replaced by what a collapse leaves: every image in one class."""
    task, rates, train = small_task(count=60), [], _repair._train
    rarer = int(task.labels[task.hold_out()[0]].bincount().argmin())

    def train_or_collapse(task, rows, epochs, learning_rate, *others):
        rates.append(learning_rate)
        if learning_rate > 0.02:
            with torch.no_grad():
                task.network[-1].weight.zero_()
                task.network[-1].bias.copy_(torch.eye(2)[rarer])
        else:
            train(task, rows, epochs, learning_rate, *others)

    fine_tune(task, epochs=10, learning_rate=0.05, batch_size=16)
    accuracy = task.measure_accuracy(task.hold_out()[0])
    assert accuracy > 0.8
    monkeypatch.setattr(_repair, "_train", train_or_collapse)
    fine_tune(task, epochs=2, learning_rate=0.08, batch_size=16)
    assert rates == pytest.approx([0.08, 0.08 / 3, 0.08 / 9])
    assert task.measure_accuracy(task.hold_out()[0]) >= accuracy - 0.02


def test_images_that_are_not_trained_on_judge_the_learning_rate():
    """With wrong labels, each step towards the images that are trained on is one away from those held out."""
    task, seen = small_task(count=60), []
    fine_tune(task, epochs=20, learning_rate=0.05, batch_size=16)
    held, used = task.hold_out()
    assert len(held) == 12 and sorted([*held.tolist(), *used.tolist()]) == list(range(60))
    before = task.measure_accuracy(held)
    assert before > 0.8
    task.labels[used] = 1 - task.labels[used]

    def record(images, random):
        seen.extend(images)
        return images

    fine_tune(task, epochs=3, learning_rate=0.2, batch_size=16, change=record)
    assert task.measure_accuracy(held) > 0.5 > task.measure_accuracy(used)
    assert len(seen) > 3 * len(used)  # a rate was refused
    images, _ = task.batch(held)
    assert not any(torch.equal(one, other) for one in images for other in seen)


def test_anp_prunes_and_restores_gradients():
    task = small_task()
    fine_tune(task, epochs=10, learning_rate=0.05, batch_size=16)
    before = task.measure_accuracy()
    make_repair("anp", {"steps": 20, "epochs": 0, "tolerance": 0.05}).repair(task)
    assert task.measure_accuracy() >= before - 0.05
    assert all(weight.requires_grad for weight in task.network.parameters())
    assert not task.network[1]._forward_hooks
