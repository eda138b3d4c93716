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
from securitynet.metrics.pair_leads import find_leading_pair
from securitynet.models.targets.input_gradients import InputGradients, compute_cross_entropy, compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed, make_generator

STEP = 0.3
"""Mean absolute change of a pixel in the first step of an ascent; it falls to 0."""

MOST_SEARCHED, MOST_TRIED = 4, 16
"""Images of a source on which a patch is optimised, and most other ones on which it is tried."""

MOST_LEADING, MOST_CONFIRMED, RESTARTS, LONGER = 3, 8, 2, 3
"""Pairs with the largest leads that must be confirmed, most confirmations, and their starting points and steps, as a
multiple of the first search's."""

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
        margins[row], success[row] = _search_pair(gradients, own, (source, goal), boxes, steps, seed)
        report_progress((row + 1) / len(pairs))
    return margins, success


def confirm_leads(
    target: Target,
    own: Sequence[torch.Tensor | None],
    margins: Values,
    success: Values,
    boxes: Sequence[Box],
    *,
    steps: int,
    seed: int,
) -> None:
    """Search longer for the rivals of the pairs that lead most, in place.

    A short ascent may find a large margin for one pair at one place by luck, in networks that are far too sure of
    everything above all. So the pair that leads most is searched again, from more starting points and with more steps,
    at all places, and so are its source with other targets and other sources with its target at its place. Larger
    margins replace the first ones, and the lead of a pair that was only lucky is gone. This is repeated until the pairs
    that lead most have all been searched again, for at most `MOST_CONFIRMED` leads.

    Args:
        target: The target, under white-box access.
        own: As for `search_patches`.
        margins: Mean margins by source, target and place, S×T×B; NaN for pairs that were not searched.
        success: Shares of the images that the patches send to the target, S×T×B.
        boxes: The B places.
        steps: Steps of an ascent of the first search.
        seed: Seed of the first search.
    """
    gradients, places, confirmed = InputGradients(target, loss=compute_cross_entropy), np.array(boxes), set()
    for _ in range(MOST_CONFIRMED):
        test = find_leading_pair(margins, places)
        if test is None:
            return
        ranked = np.argsort(-np.nan_to_num(test.leads, nan=-np.inf), axis=None)[:MOST_LEADING]
        leading = [(int(a), int(b)) for a, b in zip(*np.unravel_index(ranked, test.leads.shape), strict=True)]
        waiting = [(a, b, int(test.places[a, b])) for a, b in leading]
        waiting = [cell for cell in waiting if cell not in confirmed and cell[2] >= 0]
        if not waiting:
            return
        source, goal, place = waiting[0]
        confirmed.add(waiting[0])
        known = ~np.isnan(margins[:, :, place])
        rivals = [(source, int(label), [place]) for label in np.flatnonzero(known[source]) if label != goal]
        rivals += [(int(label), goal, [place]) for label in np.flatnonzero(known[:, goal]) if label != source]
        for number in range(RESTARTS):
            again = derive_seed(seed, "confirmation", number)
            for a, b, where in [(source, goal, list(range(len(boxes)))), *rivals]:
                found = _search_pair(gradients, own, (a, b), [boxes[one] for one in where], LONGER * steps, again)
                better = np.flatnonzero(found[0] > margins[a, b, where])
                for one in better:
                    margins[a, b, where[one]], success[a, b, where[one]] = found[0][one], found[1][one]


def find_best_patch(
    target: Target, own: torch.Tensor, pair: tuple[int, int], place: int, boxes: Sequence[Box], *, steps: int, seed: int
) -> torch.Tensor:
    """The patch of a confirmed pair at a place that has the largest margin, C×s×s: the searches are made again.

    Args:
        target: The target, under white-box access.
        own: Images of the pair's source, as for `search_patches`.
        pair: Source and target.
        place: Number of the place among the boxes.
        boxes: The B places.
        steps: Steps of an ascent of the first search.
        seed: Seed of the first search.
    """
    gradients = InputGradients(target, loss=compute_cross_entropy)
    (source, goal), (searched, tried), chosen = pair, split_own(own), [boxes[place]]
    searches = [(steps, seed)]
    searches += [(LONGER * steps, derive_seed(seed, "confirmation", number)) for number in range(RESTARTS)]
    found = []
    for length, own_seed in searches:
        # At all places, since the patches to start from are drawn together.
        patches = optimise_patches(gradients, searched, goal, boxes, length, own_seed, source)[place : place + 1]
        found.append((float(_try_patches(gradients, tried, patches, chosen, goal)[0][0]), patches[0]))
    return max(found, key=lambda one: one[0])[1]


def _search_pair(
    gradients: InputGradients,
    own: Sequence[torch.Tensor | None],
    pair: tuple[int, int],
    boxes: Sequence[Box],
    steps: int,
    seed: int,
) -> tuple[Values, Values]:
    """Mean margins and success of a pair's patches on images that they were not optimised on, B each."""
    source, goal = pair
    images = own[source]
    assert images is not None  # it is a source
    searched, tried = split_own(images)
    patches = optimise_patches(gradients, searched, goal, boxes, steps, seed, source)
    return _try_patches(gradients, tried, patches, boxes, goal)


def _try_patches(
    gradients: InputGradients, tried: torch.Tensor, patches: torch.Tensor, boxes: Sequence[Box], goal: int
) -> tuple[Values, Values]:
    """Mean margins of a class on images with patches B×C×s×s, and shares of the images that are sent to it, B each."""
    margins, success = np.empty((2, len(boxes)))
    size = max(1, GROUP_NUMBERS // tried.numel())
    for first in range(0, len(boxes), size):
        places = boxes[first : first + size]
        carriers = tried.repeat(len(places), 1, 1, 1, 1)
        put_patches(carriers, patches[first : first + size], places)
        logits = gradients.logits(carriers.flatten(0, 1))
        margin = -compute_margin_loss(logits, torch.full((len(logits),), goal, device=logits.device))
        margin = margin.view(len(places), -1).double().cpu()
        margins[first : first + size] = margin.mean(dim=1)
        success[first : first + size] = (margin > 0).double().mean(dim=1)
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
