"""The parts of AutoAttack that follow gradients by Auto-PGD: on the cross-entropy, and towards each class in turn."""

from __future__ import annotations

import torch

from securitynet.attacks.evasion._apgd import compute_targeted_ratio, run_apgd, run_l1, start_apgd
from securitynet.attacks.evasion._norms import Norm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion._sequence import AttackPart
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

MOST_TARGETS = 9
"""Largest number of classes that targeted attacks aim at, in the order of the logits."""

FEWEST_FOR_RATIO = 4
"""Smallest number of classes for the targeted difference-of-logits ratio."""


def make_untargeted(target: Target, norm: Norm, steps: int) -> AttackPart:
    """Make APGD on the cross-entropy, followed by the log-odds, which rise and fall with it and do not saturate.

    Args:
        target: The target, under white-box access.
        norm: Norm of the perturbation.
        steps: Number of iterations.
    """
    take = InputGradients(target, loss=log_odds)

    def search(images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int) -> tuple[torch.Tensor, None]:
        points, _ = _search(take, images, labels, labels, epsilon, norm, steps, seed, not is_averaged(target))
        return points, None

    return AttackPart("apgd-ce", search)


def make_targeted(target: Target, norm: Norm, steps: int, classes: int) -> AttackPart:
    """Make APGD on the targeted difference of logits ratio, for the most likely other classes one after another.

    Args:
        target: The target, under white-box access.
        norm: Norm of the perturbation.
        steps: Number of iterations towards each class.
        classes: Number of classes, at least `FEWEST_FOR_RATIO`.
    """
    take = InputGradients(target, loss=compute_targeted_ratio)
    stop_early = not is_averaged(target)

    def search(images: torch.Tensor, labels: torch.Tensor, epsilon: float, seed: int) -> tuple[torch.Tensor, None]:
        others = take.logits(images).scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        best, rows = images.clone(), torch.arange(len(images))
        for rank in range(min(MOST_TARGETS, classes - 1)):
            if not len(rows):
                break
            points, evaded = _search(
                take,
                images[rows],
                labels[rows],
                others[rows, rank],
                epsilon,
                norm,
                steps,
                seed + rank,
                stop_early,
            )
            if not stop_early:
                evaded = take.logits(points).argmax(dim=1) != labels[rows]
            best[rows] = points
            rows = rows[~evaded]
        return best, None

    return AttackPart("apgd-t", search)


def _search(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: torch.Tensor,
    epsilon: float,
    norm: Norm,
    steps: int,
    seed: int,
    stop_early: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    random = make_generator(seed, "apgd")
    if norm == "l1":
        return run_l1(take, images, labels, classes, epsilon=epsilon, steps=steps, random=random, stop_early=stop_early)
    start = start_apgd(images, epsilon, norm, random)
    return run_apgd(
        take,
        images,
        labels,
        classes,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        start=start,
        stop_early=stop_early,
    )
