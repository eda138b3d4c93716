"""The search for the smallest distortion per class that sends images of all other classes to it, many classes at once.

A distortion moves every pixel by a displacement that is the same for all images: a coarse grid of displacements,
enlarged smoothly, as in WaNet (Nguyen and Tran, 2021, section 3.2). The weight of its size in the loss rises while the
distortion works and falls while it does not, as in Neural Cleanse, and the smallest size with which it worked counts.
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

FIRST_WEIGHT, RAISED, LOWERED, PERIOD = 10.0, 1.5, 1.8, 4
"""First weight of the size; its factor after success and its divisor after failure, applied once in so many steps."""

RATE = 0.05
"""Learning rate of Adam."""

FIRST_SPREAD = 0.05
"""Standard deviation of the first displacements, before they are bounded: near none, so that small ones come first."""


@dataclass(frozen=True)
class Rules:
    """How distortions are searched.

    Attributes:
        steps: Steps of the optimisation.
        grid: Displacements along each side of the coarse grid.
        reach: Largest displacement along each axis, as a share of the side.
        success: Least share of the images of other classes that a working distortion sends to its class.
    """

    steps: int
    grid: int
    reach: float
    success: float


@dataclass(frozen=True, eq=False)
class Distortions:
    """The smallest distortions of K classes.

    Attributes:
        sizes: Root mean square of the displacements along an axis, as shares of the side, K float64; infinite where no
            distortion worked.
        grids: Displacements to the right and down as shares of the side, K×2×G×G; where none worked, the last ones.
    """

    sizes: torch.Tensor
    grids: torch.Tensor


def search_distortions(
    target: Target,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    rules: Rules,
    *,
    seed: int,
    report_progress: Callable[[float], None] = lambda share: None,
) -> Distortions:
    """Search, for each class, for the smallest distortion that sends images of other classes to it.

    Args:
        target: The target, under white-box access.
        images: N×C×H×W in [0, 1].
        labels: Their classes, N.
        classes: Number of classes, K.
        rules: How to search.
        seed: Seed of the starting points; those of a class do not depend on the other classes.
        report_progress: Called with the share of the work that is done, in [0, 1].
    """
    gradients = InputGradients(target, loss=cross_entropy)
    # All images are distorted for each class in each step, so the classes are searched in groups.
    group = max(1, GROUP_NUMBERS // images.numel())
    parts = []
    for first in range(0, classes, group):
        goals = torch.arange(first, min(classes, first + group))

        def report(step: int, goals: torch.Tensor = goals) -> None:
            report_progress((int(goals[0]) + len(goals) * step / rules.steps) / classes)

        parts.append(_search_group(gradients, images, labels, goals, rules, seed, report))
    return Distortions(torch.cat([part.sizes for part in parts]), torch.cat([part.grids for part in parts]))


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
) -> Distortions:
    drawn = [
        torch.randn((2, rules.grid, rules.grid), generator=generator(seed, "warp search", int(goal))) for goal in goals
    ]
    device, count = images.device, len(goals)
    raw = (FIRST_SPREAD * torch.stack(drawn)).to(device).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=RATE)
    wanted = goals.to(device)
    # Images of the class itself need no distortion and say nothing about it.
    others = (labels[None] != wanted[:, None]).float()
    shares = others / others.sum(dim=1, keepdim=True).clamp_min(1)
    weights = torch.full((count,), FIRST_WEIGHT, device=device)
    best, best_sizes = raw.detach().clone(), torch.full((count,), torch.inf, device=device)
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(rules.steps):
            grids = rules.reach * torch.tanh(raw)
            distorted = distort(images, grids)
            sizes = (grids**2).mean(dim=(1, 2, 3)).sqrt()
            passed = gradients(distorted.detach().flatten(0, 1), wanted.repeat_interleave(len(images)))
            hits = (passed.logits.argmax(dim=1).view(count, -1) == wanted[:, None]).float()
            works, current = (hits * shares).sum(dim=1) >= rules.success, sizes.detach()
            better = works & (current < best_sizes)
            best_sizes = torch.where(better, current, best_sizes)
            best = torch.where(better.view(-1, 1, 1, 1), raw.detach(), best)
            optimizer.zero_grad()
            of_loss = passed.gradients.view_as(distorted) * shares[:, :, None, None, None]
            penalty = (weights * sizes).sum()
            torch.autograd.backward([distorted, penalty], [of_loss, torch.ones_like(penalty)])
            optimizer.step()
            if step % PERIOD == PERIOD - 1:
                weights = torch.where(works, weights * RAISED, weights / LOWERED)
            report(step + 1)
    reached = torch.isfinite(best_sizes).view(-1, 1, 1, 1)
    return Distortions(best_sizes.double().cpu(), rules.reach * torch.tanh(torch.where(reached, best, raw.detach())))
