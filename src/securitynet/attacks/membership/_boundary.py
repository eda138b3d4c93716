"""Distance to the decision boundary, from predicted classes alone: many records at once, each within a budget.

A decision-based search in the manner of HopSkipJump (Chen, Jordan and Wainwright, 2020), in the Euclidean norm: from a
point on the other side, bisect to the boundary; estimate its normal from the answers to small random steps; move along
it, and bisect again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from securitynet.attacks.membership._label_only import Oracle

BISECTIONS = 8
"""Questions of a bisection: the fraction of the way is then known to 1/256."""

STEP_TRIES = 5
"""Most questions until a step along the normal, halved each time, stays on the other side."""

FIRST_DIRECTIONS = 16
"""Random steps for the first estimate of the normal; the t-th has the square root of t times as many."""

FEWEST_DIRECTIONS = 8

LEAST_QUERIES = BISECTIONS + FEWEST_DIRECTIONS + STEP_TRIES + BISECTIONS

Wrong = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def distances(
    oracle: Oracle,
    images: torch.Tensor,
    labels: torch.Tensor,
    starts: torch.Tensor,
    *,
    queries: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """An upper bound on the Euclidean distance from each image to the nearest one of another class, N float32.

    Args:
        oracle: Predicted classes.
        images: N×C×H×W in [0, 1], which the oracle puts into ``labels``.
        labels: N.
        starts: Images that it puts into other classes, N×C×H×W.
        queries: Most questions for each image, at least `BISECTIONS`.
        generator: Of the random steps.
    """
    origin, shape = images.flatten(1), images.shape[1:]

    def wrong(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return oracle(points.view(-1, *shape)) != labels[rows]

    beyond = _bisect(wrong, origin, starts.flatten(1))
    best: torch.Tensor = (beyond - origin).norm(dim=1)
    spent, iteration = BISECTIONS, 1
    while True:
        wanted = round(FIRST_DIRECTIONS * math.sqrt(iteration))
        directions = min(wanted, queries - spent - STEP_TRIES - BISECTIONS)
        if directions < FEWEST_DIRECTIONS:
            return best
        normal = _normal(wrong, origin, beyond, directions, generator)
        stepped = _step(wrong, origin, beyond, normal, iteration)
        beyond = _bisect(wrong, origin, stepped)
        best = torch.minimum(best, (beyond - origin).norm(dim=1))
        spent += directions + STEP_TRIES + BISECTIONS
        iteration += 1


def _bisect(wrong: Wrong, origin: torch.Tensor, beyond: torch.Tensor) -> torch.Tensor:
    """Points just on the other side, on the segments from ``origin`` to ``beyond``, which is on the other side."""
    rows = torch.arange(len(origin))
    low, high = torch.zeros(len(origin), 1), torch.ones(len(origin), 1)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        other = wrong(origin + middle * (beyond - origin), rows)[:, None]
        low, high = torch.where(other, low, middle), torch.where(other, middle, high)
    return origin + high * (beyond - origin)


def _normal(
    wrong: Wrong, origin: torch.Tensor, beyond: torch.Tensor, directions: int, generator: torch.Generator
) -> torch.Tensor:
    """Unit vectors that point to the other side, estimated from ``directions`` questions each."""
    count, size = origin.shape
    # A step must cross the boundary about half the time; this is HopSkipJump's choice for the Euclidean norm.
    length = ((beyond - origin).norm(dim=1) / math.sqrt(size)).clamp_min(1e-4)[:, None, None]
    steps = torch.randn((count, directions, size), generator=generator)
    steps /= steps.norm(dim=2, keepdim=True)
    points = (beyond[:, None] + length * steps).clamp(0, 1)
    steps = (points - beyond[:, None]) / length  # what the limits of the image left of them
    rows = torch.arange(count).repeat_interleave(directions)
    signs = wrong(points.flatten(0, 1), rows).view(count, directions).float() * 2 - 1
    # Centring lowers the variance; where all answers agree there is nothing to centre.
    mean = signs.mean(dim=1, keepdim=True)
    weights = torch.where(mean.abs() == 1, signs, signs - mean)
    estimate = (weights[:, :, None] * steps).mean(dim=1)
    return torch.nn.functional.normalize(estimate, dim=1)


def _step(
    wrong: Wrong, origin: torch.Tensor, beyond: torch.Tensor, normal: torch.Tensor, iteration: int
) -> torch.Tensor:
    """Along the normal, by a step halved until it stays on the other side; points for which none does stay put."""
    size = ((beyond - origin).norm(dim=1) / math.sqrt(iteration))[:, None]
    moved, rows = beyond.clone(), torch.arange(len(origin))
    for _ in range(STEP_TRIES):
        tried = (beyond[rows] + size[rows] * normal[rows]).clamp(0, 1)
        other = wrong(tried, rows)
        moved[rows[other]] = tried[other]
        rows = rows[~other]
        if len(rows) == 0:
            break
        size = size / 2
    return moved
