"""Distance to the decision boundary from predicted classes alone, for many records at once, within a query budget.

A decision-based search like HopSkipJump (Chen, Jordan and Wainwright, 2020) in the Euclidean norm: from a point on the
other side, bisect to the boundary; estimate its normal from the predicted classes at small random steps; move along the
normal, and bisect again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from securitynet.attacks.membership._label_only import LabelOracle

BISECTIONS = 8
"""Queries per bisection, which locate the boundary to 1/256 of the segment."""

STEP_TRIES = 5
"""Largest number of times a step along the normal is halved until it stays on the other side."""

FIRST_DIRECTIONS = 16
"""Number of random steps for the first estimate of the normal; the t-th estimate uses √t times as many."""

FEWEST_DIRECTIONS = 8

LEAST_QUERIES = BISECTIONS + FEWEST_DIRECTIONS + STEP_TRIES + BISECTIONS

Wrong = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bound_distances(
    oracle: LabelOracle,
    images: torch.Tensor,
    labels: torch.Tensor,
    starts: torch.Tensor,
    *,
    queries: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return an upper bound of the Euclidean distance from each image to the nearest one of another class, N float32.

    Args:
        oracle: Returns predicted classes.
        images: Images in [0, 1], N×C×H×W, which the oracle assigns to ``labels``.
        labels: Their classes, N.
        starts: Images that it assigns to other classes, N×C×H×W.
        queries: Largest number of queries per image, at least `BISECTIONS`.
        generator: Random numbers of the steps.
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
    """Return points just across the boundary, on the segments from ``origin`` to ``beyond`` on the other side."""
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
    """Estimate unit normals that point to the other side, from ``directions`` queries each."""
    count, size = origin.shape
    # A step must cross the boundary about half the time; this is HopSkipJump's choice for the Euclidean norm.
    length = ((beyond - origin).norm(dim=1) / math.sqrt(size)).clamp_min(1e-4)[:, None, None]
    steps = torch.randn((count, directions, size), generator=generator)
    steps /= steps.norm(dim=2, keepdim=True)
    points = (beyond[:, None] + length * steps).clamp(0, 1)
    steps = (points - beyond[:, None]) / length  # the steps that remain after clipping to [0, 1]
    rows = torch.arange(count).repeat_interleave(directions)
    signs = wrong(points.flatten(0, 1), rows).view(count, directions).float() * 2 - 1
    # Centring lowers the variance; if all predictions agree, there is nothing to centre.
    mean = signs.mean(dim=1, keepdim=True)
    weights = torch.where(mean.abs() == 1, signs, signs - mean)
    estimate = (weights[:, :, None] * steps).mean(dim=1)
    return torch.nn.functional.normalize(estimate, dim=1)


def _step(
    wrong: Wrong, origin: torch.Tensor, beyond: torch.Tensor, normal: torch.Tensor, iteration: int
) -> torch.Tensor:
    """Step along the normal, halving the step until it stays on the other side; a point without such a step stays."""
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
