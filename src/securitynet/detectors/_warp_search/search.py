"""The search for one distortion per class that sends images of all other classes to it, many classes at once.

A distortion moves every pixel by a displacement that is the same for all images: a coarse grid of displacements,
enlarged smoothly, as in WaNet (Nguyen and Tran, 2021, section 3.2). Its largest displacement is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from securitynet.models.targets.input_gradients import InputGradients, cross_entropy
from securitynet.models.targets.target import Target
from securitynet.randomness import generator

GROUP_NUMBERS = 1 << 24
"""Most numbers in the distorted images of one step: 64 MiB."""

RATE = 0.1
"""Learning rate of Adam."""

FIRST_SPREAD = 0.3
"""Standard deviation of the first displacements, before they are bounded."""


@dataclass(frozen=True)
class Rules:
    """How distortions are searched.

    Attributes:
        steps: Steps of the optimisation.
        batch: Images in a step.
        grid: Displacements along each side of the coarse grid.
        reach: Largest displacement along each axis, as a share of the side.
    """

    steps: int
    batch: int
    grid: int
    reach: float


def search_distortions(
    target: Target,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    rules: Rules,
    *,
    seed: int,
    report_progress: Callable[[float], None] = lambda share: None,
) -> torch.Tensor:
    """Search, for each class, for the distortion under which images of other classes have the smallest loss for it.

    Args:
        target: The target, under white-box access.
        images: N×C×H×W in [0, 1].
        labels: Their classes, N.
        classes: Number of classes, K.
        rules: How to search.
        seed: Seed of the starting points and of the order of the images; a class's search depends on no other class.
        report_progress: Called with the share of the work that is done, in [0, 1].

    Returns:
        The coarse grids, K×2×G×G, bounded by the reach: displacements to the right and down, as shares of the side.
    """
    gradients = InputGradients(target, loss=cross_entropy)
    # All images of a step are distorted for each class, so the classes are searched in groups.
    group = max(1, GROUP_NUMBERS // (min(rules.batch, len(images)) * images[0].numel()))
    parts = []
    for first in range(0, classes, group):
        goals = torch.arange(first, min(classes, first + group))

        def report(step: int, goals: torch.Tensor = goals) -> None:
            report_progress((int(goals[0]) + len(goals) * step / rules.steps) / classes)

        parts.append(_search_group(gradients, images, labels, goals, rules, seed, report))
    return torch.cat(parts)


def distort(images: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Distort n images by each of K coarse grids.

    Args:
        images: n×C×H×W in [0, 1].
        grids: K×2×G×G, displacements to the right and down as shares of the side.

    Returns:
        K×n×C×H×W: pixel (y, x) shows what was at (y + down, x + right), to the nearest edge.
    """
    count, channels, height, width = images.shape
    # Enlarging by cubic curves overshoots the grid's displacements a little; that is part of the distortion.
    shares = functional.interpolate(grids, (height, width), mode="bicubic", align_corners=True)
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    straight = torch.stack([columns, rows], dim=-1)
    places = straight + 2 * shares.permute(0, 2, 3, 1)
    moved = functional.grid_sample(
        images[None].expand(len(grids), -1, -1, -1, -1).reshape(-1, channels, height, width),
        places[:, None].expand(-1, count, -1, -1, -1).reshape(-1, height, width, 2),
        padding_mode="border",
        align_corners=True,
    )
    return moved.view(len(grids), count, channels, height, width)


def _search_group(
    gradients: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    goals: torch.Tensor,
    rules: Rules,
    seed: int,
    report: Callable[[int], None],
) -> torch.Tensor:
    drawn = [
        torch.randn((2, rules.grid, rules.grid), generator=generator(seed, "warp search", int(goal))) for goal in goals
    ]
    raw = (FIRST_SPREAD * torch.stack(drawn)).to(images.device).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=RATE)
    order = generator(seed, "warp search images")
    size = min(rules.batch, len(images))
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(rules.steps):
            chosen = torch.randperm(len(images), generator=order)[:size].to(images.device)
            distorted = distort(images[chosen], rules.reach * torch.tanh(raw))
            wanted = goals.to(images.device).repeat_interleave(size)
            passed = gradients(distorted.detach().flatten(0, 1), wanted)
            # Images of the class itself need no distortion and say nothing about it.
            others = (labels[chosen][None] != goals.to(images.device)[:, None]).float()
            weights = others / others.sum(dim=1, keepdim=True).clamp_min(1)
            of_loss = passed.gradients.view_as(distorted) * weights[:, :, None, None, None]
            optimizer.zero_grad()
            torch.autograd.backward([distorted], [of_loss])
            optimizer.step()
            report(step + 1)
    return (rules.reach * torch.tanh(raw)).detach()
