"""FGSM and PGD against torchattacks and by hand; saturated and masked gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from evasion_cases import white_box
from securitynet.attacks.evasion._gradient import draw_starts
from securitynet.attacks.evasion._norms import find_direction, measure_norms, project
from securitynet.attacks.evasion.fgsm import Fgsm
from securitynet.attacks.evasion.pgd import L2_EPSILONS, Pgd
from securitynet.attacks.evasion.square import Square
from securitynet.methods.data import TrialData
from securitynet.metrics.evasion import WARNING
from securitynet.models.targets.input_gradients import InputGradients

WHITE = Fgsm.threat_models[0]


def run(attack, target, data, context):
    return attack(target, data, context, attack.threat_models[0])


def inputs_of(output, data):
    return data.dataset.batch(output.indices).float() / 255, torch.from_numpy(output.labels)


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def not_confident(target, images, labels):
    """Where FGSM follows the cross-entropy itself: 1 - p in double precision is not below 1e-4."""
    logits = target.module(images).detach().double()
    return (1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]).numpy() >= 1.01e-4


@pytest.mark.parametrize("epsilon", [0.01, 0.03, 0.1])
def test_fgsm_equals_torchattacks(epsilon, target, data, context):
    torchattacks = pytest.importorskip("torchattacks")
    output = run(Fgsm(samples=200, epsilons=(epsilon,), keep_examples=True), target, data, context)
    images, labels = inputs_of(output, data)
    expected = torchattacks.FGSM(target.module, eps=epsilon)(images, labels)
    unsure = not_confident(target, images, labels)
    assert unsure.mean() > 0.3
    assert np.abs(output.examples[0, 0] - expected.numpy())[unsure].max() <= 1e-6


def test_fgsm_by_hand(target, data, context):
    output = run(Fgsm(samples=10, epsilons=(0.02, 0.2), keep_examples=True), target, data, context)
    images, labels = inputs_of(output, data)
    leaf = images.clone().requires_grad_()
    nn.functional.cross_entropy(target.module(leaf), labels, reduction="sum").backward()
    unsure = not_confident(target, images, labels)
    for found, epsilon in zip(output.examples[0], (0.02, 0.2), strict=True):
        expected = torch.minimum(torch.maximum(images + epsilon * leaf.grad.sign(), images * 0), images * 0 + 1)
        np.testing.assert_allclose(found[unsure], expected.numpy()[unsure], atol=1e-6)


def test_one_gradient_serves_all_epsilons(target, data, context, monkeypatch):
    passes = []
    original = InputGradients.__call__

    def counting(self, images, labels):
        passes.append(len(images))
        return original(self, images, labels)

    monkeypatch.setattr(InputGradients, "__call__", counting)
    run(Fgsm(samples=50, epsilons=tuple(np.linspace(0.01, 0.2, 12)), check=0), target, data, context)
    assert sum(passes) == 50


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_torchattacks(norm, target, data, context):
    torchattacks = pytest.importorskip("torchattacks")
    epsilon = {"linf": 0.1, "l2": 0.5}[norm]
    attack = Pgd(
        samples=60, norm=norm, epsilons=(epsilon,), steps=5, loss="cross-entropy", random_start=False,
        stop_early=False, keep_examples=True, check=0,
    )  # fmt: skip
    output = run(attack, target, data, context)
    peer = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    images, labels = inputs_of(output, data)
    expected = peer(target.module, eps=epsilon, alpha=2.5 * epsilon / 5, steps=5, random_start=False)(images, labels)
    right = output.clean == output.labels
    same = right & not_confident(target, images, labels)
    gap = np.abs(output.examples[0, 0][same] - expected.numpy()[same]).reshape(same.sum(), -1).max(axis=1)
    # A gradient that is nearly 0 in a pixel may have either sign after rounding, and five steps can tell these apart.
    assert (gap <= 1e-4).mean() >= 0.95
    np.testing.assert_array_equal(output.examples[0, 0][~right], images.numpy()[~right])


def test_pgd_is_stronger_than_one_step_and_restarts_help(target, data, context):
    common = {"samples": 150, "epsilons": (0.06,)}
    key = "success@epsilon=0.06"
    one_step = measured(run(Fgsm(**common), target, data, context))[key].value
    many = measured(run(Pgd(**common), target, data, context))[key].value
    again = measured(run(Pgd(**common, restarts=4), target, data, context))[key].value
    assert one_step <= many <= again and many > 0


def test_stopping_early_loses_nothing_it_has_won(target, data, context):
    common = {"samples": 80, "epsilons": (0.08,), "random_start": False, "steps": 8}
    early = run(Pgd(**common), target, data, context)
    late = run(Pgd(**common, stop_early=False), target, data, context)
    assert (early.perturbed != early.labels).sum() >= (late.perturbed != late.labels).sum()


def test_pgd_in_l2_has_budgets_of_its_own(target, data, context):
    assert Pgd(norm="l2").epsilons == L2_EPSILONS and Pgd(norm="l2", epsilons=(2.0,)).epsilons == (2.0,)
    output = run(Pgd(norm="l2", samples=30, steps=5, keep_examples=True), target, data, context)
    images, _ = inputs_of(output, data)
    norms = np.linalg.norm((output.examples[0] - images.numpy()).reshape(3, 30, -1), axis=2)
    assert (norms <= np.asarray(L2_EPSILONS)[:, None] + 1e-5).all() and norms.max() > 0.9


class Scaled(nn.Module):
    """A network whose logits are multiplied: the same answers, with more confidence."""

    def __init__(self, inner, factor):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, images):
        return self.inner(images) * self.factor


def test_confidence_does_not_hide_a_model_from_fgsm(networks, data, context):
    """Gradients of the cross-entropy vanish in single precision; those of the log-odds do not."""
    torchattacks = pytest.importorskip("torchattacks")
    attack = Fgsm(samples=200, epsilons=(0.1,))
    plain = measured(run(attack, white_box(networks[0]), data, context))["success@epsilon=0.1"].value
    sure = white_box(Scaled(networks[0], 1000.0), name="sure")
    output = run(attack, sure, data, context)
    found = measured(output)
    assert found["success@epsilon=0.1"].value >= plain - 0.02
    assert found["vanished-gradients"].value == 0
    fooled = torchattacks.FGSM(sure.module, eps=0.1)(*inputs_of(output, data))
    theirs = (sure.labels(fooled).numpy() != output.labels)[output.clean == output.labels].mean()
    assert theirs < found["success@epsilon=0.1"].value, "which is what others measure"
    log_odds = measured(run(Fgsm(samples=200, epsilons=(0.1,), loss="log-odds"), sure, data, context))
    assert log_odds["success@epsilon=0.1"].value >= found["success@epsilon=0.1"].value


def test_confident_images_follow_the_exact_gradient(networks, data, context):
    """In double precision the cross-entropy still has a gradient, whose signs FGSM must find in single precision."""
    sure = white_box(Scaled(networks[0], 3.0), name="three times as sure")
    output = run(Fgsm(samples=120, epsilons=(0.01,), keep_examples=True, check=0), sure, data, context)
    images, labels = inputs_of(output, data)
    exact = Scaled(copy.deepcopy(networks[0]).double(), 3.0)
    leaf = images.double().requires_grad_()
    nn.functional.cross_entropy(exact(leaf), labels, reduction="sum").backward()
    unsure = 1 - exact(images.double()).detach().softmax(1).gather(1, labels[:, None])[:, 0].numpy()
    confident = (unsure < 0.9e-4) & (unsure > 1e-12)  # below that, double precision loses digits too
    assert confident.sum() > 10
    moved = np.sign(output.examples[0, 0] - images.numpy())
    inside = (images.numpy() > 0.01) & (images.numpy() < 0.99) & confident[:, None, None, None]
    assert (moved[inside] == leaf.grad.sign().numpy()[inside]).mean() > 0.999


class Noisy(nn.Module):
    """A network that sees its images through noise of its own: another answer each time."""

    def __init__(self, inner, scale):
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, images):
        return self.inner(images + self.scale * torch.randn_like(images))


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_on_a_random_target_many_steps_do_no_worse_than_one(epsilon, networks, data, context):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = white_box(Noisy(networks[0], 0.3), name="noisy")
        one_step = run(Fgsm(samples=60, epsilons=(epsilon,), check=0), noisy, data, context)
        many = run(Pgd(samples=60, epsilons=(epsilon,), steps=10, check=0), noisy, data, context)
        key = f"robust-accuracy@epsilon={epsilon:g}"
        assert measured(many)[key].value <= measured(one_step)[key].value + 0.03
        assert "random" in measured(many)[key].note
        # By chance alone, hardly any image is misclassified: predictions are those of means over draws.
        null = run(Pgd(samples=60, epsilons=(1e-6,), steps=2, check=0), noisy, data, context)
        assert measured(null)["success@epsilon=1e-06"].value <= 0.15
    calm = run(Pgd(samples=8, epsilons=(0.1,), check=0), white_box(networks[0]), data, context)
    assert "random" not in (measured(calm)["robust-accuracy@epsilon=0.1"].note or "")


def test_the_square_attack_counts_queries_of_a_target_that_gets_images_wrong_by_chance(networks, data, context):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = white_box(Noisy(networks[0], 1.0), name="very noisy")
        output = run(Square(samples=40, epsilons=(0.1,), queries=20), noisy, data, context)
    right = output.clean == output.labels
    assert right.sum() > 5
    spent = output.spent[0]
    assert (spent[~right] == 0).all() and (spent[right] >= 3).all() and (spent <= 20).all()
    assert spent.min() < spent.max()


class Stepped(nn.Module):
    """Rounds its input in steps: the answers hardly change, and gradients are 0 nearly everywhere."""

    def __init__(self, inner, leak):
        super().__init__()
        self.inner, self.leak = inner, leak

    def forward(self, images):
        return self.inner((images * 16).floor() / 16 + self.leak * images)


@pytest.mark.parametrize("attack", [Fgsm(samples=60, epsilons=(0.1,)), Pgd(samples=60, epsilons=(0.1,), steps=4)])
def test_masked_gradients_warn(attack, networks, data, context):
    masked = measured(run(attack, white_box(Stepped(networks[0], 0.0), name="stepped"), data, context))
    assert masked["vanished-gradients"].value == 1 and masked["unbounded-success"].value < 0.5
    assert WARNING in masked["robust-accuracy@epsilon=0.1"].note
    honest = measured(run(attack, white_box(networks[0]), data, context))
    assert honest["unbounded-success"].value == 1
    assert WARNING not in (honest["robust-accuracy@epsilon=0.1"].note or "")


def test_null_case_a_model_that_ignores_its_input(data, context):
    class Constant(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :10] * 0 + torch.eye(10)[3]

    output = run(Fgsm(samples=100, epsilons=(0.1,)), white_box(Constant(), name="constant"), data, context)
    found = measured(output)
    drop = found["accuracy-drop@epsilon=0.1"]
    assert drop.value == 0 and drop.low <= 0 <= drop.high and found["success@epsilon=0.1"].value == 0
    assert WARNING in found["success@epsilon=0.1"].note


def test_noise_that_is_no_attack_hardly_matters(target, data, context):
    """The step must follow the gradient: random signs of the same size do much less."""
    output = run(Fgsm(samples=300, epsilons=(0.1,)), target, data, context)
    images, labels = inputs_of(output, data)
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = target.labels((images + 0.1 * signs).clamp(0, 1)) != labels
    assert noisy.float().mean() < 0.5 * (output.perturbed[0, 0] != output.labels).mean()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_norms(norm):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((6, 3, 5, 7), generator=generator)
    steps = torch.randn(images.shape, generator=generator)
    assert measure_norms(find_direction(steps, norm), norm) == pytest.approx(torch.ones(6))
    tiny = find_direction(steps * 1e-30, norm)
    torch.testing.assert_close(tiny, find_direction(steps, norm))
    assert not find_direction(torch.zeros_like(steps), norm).any()
    near = project(images + 10 * steps, images, 0.3, norm)
    assert (measure_norms(near - images, norm) <= 0.3 + 1e-6).all() and near.min() >= 0 and near.max() <= 1
    torch.testing.assert_close(project(images, images, 0.3, norm), images)
    start = draw_starts(images, 0.3, norm, 1, "test", 0)
    assert (measure_norms(start - images, norm) <= 0.3 + 1e-6).all() and bool((start != images).any())
    assert torch.equal(start, draw_starts(images, 0.3, norm, 1, "test", 0))


@pytest.mark.slow
@pytest.mark.real_data
def test_two_public_resnets(shared_data, tmp_path, context):
    """SecurityNet's direction: the drop grows with epsilon, and transfer is weaker than white-box."""
    import securitynet.datasets
    from securitynet.attacks.evasion.fgsm_transfer import FgsmTransfer
    from securitynet.datasets import splits
    from securitynet.models.loading.load import load_target

    torchattacks = pytest.importorskip("torchattacks")
    dataset = securitynet.datasets.load(f"parquet:{shared_data / 'cifar10-jpeg'}", limit=600)
    data = TrialData(dataset, splits.make("public", dataset, seed=0))
    folder = shared_data / "cifar10-resnets"
    files = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
    given = {
        name: {
            "model": f"arch:cifar-{name}",
            "weights": folder / file,
            "normalize": "imagenet",
        }
        for name, file in files.items()
    }
    for name, other in (("resnet20", "resnet32"), ("resnet32", "resnet20")):
        target = load_target(given[name]["model"], weights=given[name]["weights"], normalize="imagenet")
        common = {"samples": 120, "epsilons": (0.001, 0.003, 0.01, 0.03)}
        output = run(Fgsm(**common, keep_examples=True, check=16), target, data, context)
        white = measured(output)
        black = measured(run(FgsmTransfer(**common, surrogates=(given[other],)), target, data, context))
        for found in (white, black):
            drops = [found[f"accuracy-drop@epsilon={epsilon:g}"].value for epsilon in common["epsilons"]]
            assert drops == sorted(drops) and drops[-1] > drops[0] + 0.2
        for epsilon in (0.003, 0.01, 0.03):
            key = f"accuracy-drop@epsilon={epsilon:g}"
            assert black[key].value < white[key].value
        assert white["unbounded-success"].value == 1
        images, labels = inputs_of(output, data)
        expected = torchattacks.FGSM(target.module, eps=0.03)(images, labels)
        unsure = not_confident(target, images, labels)
        assert unsure.any()
        assert np.abs(output.examples[0, 3] - expected.numpy())[unsure].max() <= 1e-6
