"""The margin that a small square patch can give to the target of each pair of classes, by place in the image.

A trigger that a network was trained on works in its own place. Unlike the smallest mask, which is free to change what
makes the source look like the target, patches of one size at many places show whether one place does for one pair what
it does for no other pair, and no other place for this one (`securitynet.metrics.pair_leads`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._boxes import Box, put_patches, take_patches
from securitynet.detectors._class_pairs.search import GROUP_NUMBERS
from securitynet.models.targets.input_gradients import InputGradients, compute_cross_entropy, compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

STEP = 0.3
"""Mean absolute change of a pixel in the first step of an ascent; it falls to 0."""

MOST_SEARCHED, MOST_TRIED = 4, 16
"""Images of a source on which a patch is optimised, and most other ones on which it is tried."""

Values = NDArray[np.float64]


def split_own(own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split at least two images of a source into those that patches are optimised on and those they are tried on."""
    count = min(MOST_SEARCHED, len(own) // 2)
    return own[:count], own[count:][:MOST_TRIED]


def search_patches(
    target: Target,
    own: Sequence[torch.Tensor | None],
    pairs: NDArray[np.int64],
    boxes: Sequence[Box],
    *,
    steps: int,
    seed: int,
    report_progress: Callable[[float], None] = lambda share: None,
) -> tuple[Values, Values]:
    """Optimise a patch for each pair and place, and measure it on images of the source that it was not optimised on.

    Args:
        target: The target, under white-box access.
        own: Correctly classified images of each class, N×C×H×W in [0, 1] on the target's device; None for classes that
            are no source.
        pairs: Source and target of each pair, P×2.
        boxes: The B places, all of one side.
        steps: Steps of an ascent.
        seed: Seed of the patches to start from; those of a pair do not depend on the other pairs.
        report_progress: Called with the share of the work that is done, in [0, 1].

    Returns:
        Mean margins of the target class in logits, and shares of the images that the patches send to it, P×B.
    """
    gradients = InputGradients(target, loss=compute_cross_entropy)
    margins, success = np.empty((2, len(pairs), len(boxes)))
    for row, (source, goal) in enumerate(pairs.tolist()):
        images = own[source]
        assert images is not None  # it is a source
        searched, tried = split_own(images)
        patches = optimise_patches(gradients, searched, goal, boxes, steps, seed, source)
        size = max(1, GROUP_NUMBERS // tried.numel())
        for first in range(0, len(boxes), size):
            places = boxes[first : first + size]
            carriers = tried.repeat(len(places), 1, 1, 1, 1)
            put_patches(carriers, patches[first : first + size], places)
            logits = gradients.logits(carriers.flatten(0, 1))
            margin = -compute_margin_loss(logits, torch.full((len(logits),), goal, device=logits.device))
            margin = margin.view(len(places), -1).double().cpu()
            margins[row, first : first + size] = margin.mean(dim=1)
            success[row, first : first + size] = (margin > 0).double().mean(dim=1)
        report_progress((row + 1) / len(pairs))
    return margins, success


def optimise_patches(
    gradients: InputGradients,
    images: torch.Tensor,
    goal: int,
    boxes: Sequence[Box],
    steps: int,
    seed: int,
    source: int,
) -> torch.Tensor:
    """The patches with the largest mean margin of a class among the steps of an ascent, B×C×s×s in [0, 1].

    Args:
        gradients: Of the cross-entropy of the target.
        images: N×C×H×W in [0, 1], on the target's device.
        goal: The class.
        boxes: The B places, all of one side s.
        steps: Steps of an ascent.
        seed: Seed of the patches to start from.
        source: The class of the images, which enters the seed.
    """
    side, channels, size = boxes[0][2], images.shape[1], max(1, GROUP_NUMBERS // images.numel())
    random = make_generator(seed, f"patches of class pair {source} to {goal}")
    started = torch.rand((len(boxes), channels, side, side), generator=random).to(images.device)
    parts = []
    for first in range(0, len(boxes), size):
        places, patches = boxes[first : first + size], started[first : first + size]
        carriers = images.repeat(len(places), 1, 1, 1, 1)
        goals = torch.full((len(places) * len(images),), goal, device=images.device)
        best, chosen = torch.full((len(places),), -torch.inf, device=images.device), patches
        for step in range(steps + 1):
            put_patches(carriers, patches, places)
            passed = gradients(carriers.flatten(0, 1), goals)
            margins = -compute_margin_loss(passed.logits, goals).view(len(places), -1).mean(dim=1)
            better = margins > best
            best = torch.where(better, margins, best)
            chosen = torch.where(better.view(-1, 1, 1, 1), patches, chosen)
            inside = take_patches(passed.gradients.view(carriers.shape).sum(dim=1), places)
            mean = inside.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
            patches = (patches - STEP * (1 - step / steps) * inside / mean).clamp(0, 1)
        parts.append(chosen)
    return torch.cat(parts)
