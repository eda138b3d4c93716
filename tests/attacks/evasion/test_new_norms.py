"""Auto-PGD, sparse, patch and targeted attacks against closed forms on linear networks, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evasion_cases import made_up, white_box
from securitynet.attacks.evasion._apgd import compute_targeted_ratio, project_l1, run_apgd, run_l1, start_apgd
from securitynet.attacks.evasion.apgd_l1 import ApgdL1
from securitynet.attacks.evasion.apgd_t import ApgdT
from securitynet.attacks.evasion.auto_attack import AutoAttack
from securitynet.attacks.evasion.patch import Patch, find_places, make_masks
from securitynet.attacks.evasion.pgd_targeted import PgdTargeted
from securitynet.attacks.evasion.sparse_rs import SparseRs
from securitynet.methods.context import Context
from securitynet.models.targets.input_gradients import InputGradients, log_odds

SHAPE = (1, 5, 5)


def run(attack, target, data, context=None):
    return attack(target, data, context or Context(seed=1), attack.threat_models[0])


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


class Linear(nn.Module):
    """Logits (0, w·x + b) of two classes, or W x of more."""

    def __init__(self, classes=2, seed=0, shape=SHAPE):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        size = int(np.prod(shape))
        self.weight = nn.Parameter(torch.randn(classes, size, generator=random))
        self.weight.data -= self.weight.data.mean(dim=1, keepdim=True)  # so that no class wins for all images

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


@pytest.fixture(scope="module")
def linear():
    target = white_box(Linear(), name="linear", example=SHAPE)
    return target, made_up(target, SHAPE, 2, count=60)


def gains(target, output, data):
    """The margin of each image, and what each pixel may add to that of the other class: at most its whole range."""
    images = data.dataset.batch(output.indices).float() / 255
    size = images[0].numel()
    weight = target.module(torch.eye(size).view(size, *images.shape[1:])).detach()
    slope = torch.stack([weight[:, 1 - label] - weight[:, label] for label in output.labels.tolist()])
    logits = target.module(images).detach()
    rows = torch.arange(len(images))
    labels = torch.from_numpy(output.labels)
    needed = logits[rows, labels] - logits[rows, 1 - labels]
    room = torch.where(slope > 0, 1 - images.flatten(1), images.flatten(1))
    return needed, slope.abs(), room


def evaded(output, epsilon=0):
    return torch.from_numpy(output.perturbed[0, epsilon] != output.labels)


def agree(found, best, needed, slack=0.02, least=1.0):
    """Found never exceeds what is possible, and reaches it except within ``slack`` of the boundary."""
    assert not bool((found & (best < needed - 1e-4)).any())
    clear = best > needed * (1 + slack)
    assert clear.any() and not clear.all()
    assert found[clear].float().mean() >= least


def test_apgd_in_l1_reaches_the_closed_form(linear):
    target, data = linear
    output = run(ApgdL1(samples=60, epsilons=(0.8,), steps=60, check=0), target, data)
    needed, slope, room = gains(target, output, data)
    order = slope.argsort(dim=1, descending=True)
    used = room.gather(1, order).cumsum(dim=1).clamp_max(0.8).diff(dim=1, prepend=torch.zeros(len(order), 1))
    agree(evaded(output), (slope.gather(1, order) * used).sum(dim=1), needed, slack=0.05)


@pytest.mark.parametrize("epsilon", [0.02])
def test_apgd_in_linf_reaches_the_closed_form(epsilon, linear):
    target, data = linear
    output = run(ApgdT(samples=60, epsilons=(epsilon,), steps=20, check=0), target, data)
    needed, slope, room = gains(target, output, data)
    agree(evaded(output), (slope * room.clamp_max(epsilon)).sum(dim=1), needed)
    assert "needs 4 classes" in measured(output)[f"success@epsilon={epsilon:g}"].note


def test_sparse_rs_reaches_the_closed_form(linear):
    target, data = linear
    output = run(SparseRs(samples=60, epsilons=(0.04,), queries=400), target, data)
    needed, slope, room = gains(target, output, data)
    agree(evaded(output), (slope * room).amax(dim=1), needed, least=0.95)
    assert (output.sizes <= 0.04 + 1e-6).all() and output.spent.max() <= 400


def test_a_patch_reaches_the_best_place_by_brute_force():
    shape = (1, 10, 10)
    target = white_box(Linear(shape=shape), name="linear 10", example=shape)
    data = made_up(target, shape, 2, count=60)
    output = run(Patch(samples=60, epsilons=(0.04,), places=12, check=0), target, data)
    needed, slope, room = gains(target, output, data)
    windows = nn.functional.avg_pool2d((slope * room).view(-1, 1, 10, 10), 2, stride=1) * 4
    agree(evaded(output), windows.flatten(1).amax(dim=1), needed, slack=0.3, least=0.85)
    pixels = (np.abs(output.sizes) * 100).round()
    assert pixels.max() <= 4


def test_windows():
    gradients = torch.zeros(2, 3, 6, 8)
    gradients[0, 1, 4:6, 1:3] = 1
    gradients[1, :, 0:2, 6:8] = -1
    corners = find_places(gradients, 2)
    assert corners.tolist() == [[4, 1], [0, 6]]
    masks = make_masks(corners, 2, 6, 8)
    assert masks.shape == (2, 1, 6, 8) and bool((masks.expand_as(gradients) >= (gradients != 0)).all())
    assert masks.sum(dim=(1, 2, 3)).tolist() == [4, 4]


def test_projection_onto_the_l1_ball_is_the_nearest_point():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 2, 3, generator=random)
    deltas = torch.randn(images.shape, generator=random)
    near = project_l1(deltas, images, 0.9)
    assert (near.abs().flatten(1).sum(1) <= 0.9 + 1e-5).all()
    assert (images + near).min() >= -1e-6 and (images + near).max() <= 1 + 1e-6
    # Every feasible point makes an obtuse angle with the nearest one (variational inequality).
    others = torch.randn(500, 40, 1, 2, 3, generator=random)
    others = others / others.abs().flatten(2).sum(2)[..., None, None, None] * 0.9
    others = (images + others).clamp(0, 1) - images
    products = ((others - near) * (deltas - near)).flatten(2).sum(2)
    assert products.max() <= 1e-4
    inside = deltas * 1e-3
    box = (images + inside).clamp(0, 1) - images
    torch.testing.assert_close(project_l1(inside, images, 0.9), box)


def test_targeted_ratio_by_hand():
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, 2.0, 1.0]])
    found = compute_targeted_ratio(logits, torch.tensor([2, 0]))
    assert found.tolist() == pytest.approx([(3 - 5) / (5 - (2 + 1) / 2), (0 - 4) / (4 - (1 + 0) / 2)])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_apgd_stays_inside_and_improves_its_loss(norm, networks, data):
    target = white_box(networks[0])
    images = data.dataset.batch(data.splits.non_members[:20]).float() / 255
    labels = torch.from_numpy(data.dataset.labels[data.splits.non_members[:20]])
    take, epsilon = InputGradients(target, loss=log_odds), {"linf": 0.1, "l2": 0.8, "l1": 3.0}[norm]
    random = torch.Generator().manual_seed(0)
    if norm == "l1":
        points, _ = run_l1(take, images, labels, labels, epsilon=epsilon, steps=30, random=random, stop_early=False)
    else:
        start = start_apgd(images, epsilon, norm, random)
        points, _ = run_apgd(
            take, images, labels, labels, epsilon=epsilon, norm=norm, steps=30, start=start, stop_early=False
        )
    distance = {"linf": lambda d: d.abs().amax(1), "l2": lambda d: d.norm(dim=1), "l1": lambda d: d.abs().sum(1)}[norm]
    assert (distance((points - images).flatten(1)) <= epsilon * (1 + 1e-4)).all()
    assert points.min() >= 0 and points.max() <= 1
    gain = log_odds(take.logits(points), labels) - log_odds(take.logits(images), labels)
    assert (gain > 0).all()


def test_targeted_attacks_reach_the_class_that_was_chosen(networks, data):
    target = white_box(networks[0])
    output = run(PgdTargeted(samples=60, epsilons=(0.02, 0.3), steps=15), target, data)
    found = measured(output)
    assert (output.goals != output.labels).all() and len(set(output.goals.tolist())) > 5
    small, large = (found[f"targeted-success@epsilon={e}"].value for e in ("0.02", "0.3"))
    assert small < large and large > 0.8
    right = output.clean == output.labels
    assert large == pytest.approx((output.perturbed[0] == output.goals).any(axis=0)[right].mean())
    assert found["success@epsilon=0.3"].value >= large
    least = run(PgdTargeted(samples=20, epsilons=(0.3,), goal="least-likely", check=0), target, data)
    images = data.dataset.batch(least.indices).float() / 255
    right = least.clean == least.labels
    np.testing.assert_array_equal(least.goals[right], target.module(images).argmin(dim=1).numpy()[right])


def test_every_part_of_auto_attack_reports_its_share(networks, data):
    pytest.importorskip("torchattacks")
    output = run(
        AutoAttack(samples=30, epsilons=(0.03, 0.06), steps=8, queries=20, check=0), white_box(networks[0]), data
    )
    found = measured(output)
    for epsilon in ("0.03", "0.06"):
        shares = [found[f"{part}.share@epsilon={epsilon}"].value for part in ("apgd-ce", "apgd-t", "fab-t", "square")]
        assert sum(shares) == pytest.approx(found[f"success@epsilon={epsilon}"].value) and shares[0] > 0


class Constant(nn.Module):
    """The same logits for every image, with a gradient of 0."""

    def forward(self, images):
        return images.flatten(1)[:, :4] * 0 + torch.eye(4)[3]


@pytest.mark.parametrize(
    "attack",
    [
        ApgdT(samples=10, epsilons=(0.3,), steps=3, check=0),
        ApgdL1(samples=10, epsilons=(3.0,), steps=5, check=0),
        PgdTargeted(samples=10, epsilons=(0.3,), steps=3, check=0),
        SparseRs(samples=10, epsilons=(0.2,), queries=8),
        Patch(samples=10, epsilons=(0.2,), steps=3, places=2, check=0),
    ],
)
def test_null_cases(attack, networks, data):
    constant = white_box(Constant(), name="constant", example=SHAPE)
    found = measured(run(attack, constant, made_up(constant, SHAPE, 4)))
    name = f"success@epsilon={attack.epsilons[0]:g}"
    assert found[name].value == 0 and found[name].n == 10
    # With almost no budget, the accuracy is the clean one.
    tiny = measured(run(attack.model_copy(update={"epsilons": (1e-6,)}), white_box(networks[0]), data))
    assert tiny["robust-accuracy@epsilon=1e-06"].value == tiny["clean-accuracy"].value
