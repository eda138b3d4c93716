"""The walk of BREP-MI: latent vectors move away from the boundary of their class, seen through labels alone.

Kahla et al., "Label-only model inversion attacks via boundary repulsion" (2022), section 4 and algorithm 1. Points on a
sphere around each latent vector are classified; the vector moves away from the mean of those outside the class, and
the sphere grows when all of its points lie inside, so the vector ends where a large sphere is inside the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from securitynet.attacks.inversion._search import Tensors
from securitynet.randomness import make_generator

CodeOracle = Callable[[torch.Tensor], torch.Tensor]
"""Maps latent vectors, N×D, to the predicted classes of their images, N int64 on the CPU."""

_LARGEST_STEP = 3.0
_FEWEST_DRAWS = 64


@dataclass(frozen=True)
class WalkRules:
    """Settings of the walk; defaults of the paper's experiments (section 5.1) are those of `BoundaryRepulsion`.

    Attributes:
        points: Points on each sphere.
        radius: First radius.
        expansion: Factor by which a sphere grows whose points all lie in the class.
        inside: Share of the points that must lie in the class for the sphere to grow.
        patience: Steps without growth after which a vector stops.
        draws: Largest number of random latent vectors among which those to start from are found, for each class.
        clip: Latent vectors are clipped to [−clip, clip].
        seed: Seed of all randomness.
    """

    points: int
    radius: float
    expansion: float
    inside: float
    patience: int
    draws: int
    clip: float
    seed: int


def start_walk(
    oracle: CodeOracle, classes: torch.Tensor, latent: int, rules: WalkRules, place: torch.device
) -> Tensors:
    """Draw random latent vectors until each requested class has enough to start from, or the draws are spent.

    Args:
        oracle: Classifies latent vectors.
        classes: The requested class of each vector, N int64 on the CPU.
        latent: Dimensions of the latent space, D.
        rules: Settings.
        place: Device of the vectors.

    Returns:
        The state: codes (N×D), radius, steps without growth, steps and whether the walk goes on (each N). A vector
        whose class was not found stays where it was drawn, and has 0 steps and radius 0.
    """
    draws = make_generator(rules.seed, "boundary repulsion starts")
    count, budget = len(classes), rules.draws * len(torch.unique(classes))
    codes = torch.randn(count, latent, generator=draws).clamp(-rules.clip, rules.clip)
    waiting = torch.ones(count, dtype=torch.bool)
    while bool(waiting.any()) and budget > 0:
        size = min(budget, max(_FEWEST_DRAWS, 2 * count))
        tried = torch.randn(size, latent, generator=draws).clamp(-rules.clip, rules.clip)
        seen = oracle(tried.to(place))
        budget -= size
        for label in torch.unique(classes[waiting]).tolist():
            rows = (waiting & (classes == label)).nonzero().flatten()
            hits = (seen == label).nonzero().flatten()[: len(rows)]
            codes[rows[: len(hits)]] = tried[hits]
            waiting[rows[: len(hits)]] = False
    return {
        "codes": codes.to(place),
        "radius": torch.where(waiting, 0.0, rules.radius),
        "idle": torch.zeros(count, dtype=torch.int64),
        "steps": torch.zeros(count, dtype=torch.int64),
        "active": ~waiting,
    }


def advance_walk(state: Tensors, step: int, oracle: CodeOracle, classes: torch.Tensor, rules: WalkRules) -> bool:
    """Perform one step of all vectors that are active (algorithm 1, lines 4 to 17), in place.

    A move that would leave the class is not made.

    Args:
        state: See `start_walk`.
        step: Number of the step, for the random points.
        oracle: Classifies latent vectors.
        classes: The requested class of each vector, N int64 on the CPU.
        rules: Settings.

    Returns:
        Whether any vector is still active.
    """
    rows = state["active"].cpu().nonzero().flatten()
    if not len(rows):
        return False
    codes, wanted = state["codes"][rows], classes[rows]
    drawn = torch.randn(
        len(classes), rules.points, codes.shape[1], generator=make_generator(rules.seed, "sphere", step)
    )
    directions = torch.nn.functional.normalize(drawn[rows], dim=2).to(codes.device)
    radius = state["radius"][rows].to(codes.device)
    sphere = codes[:, None] + radius[:, None, None] * directions
    inside = oracle(sphere.flatten(0, 1)).view(len(rows), -1) == wanted[:, None]
    grown = inside.double().mean(dim=1) >= rules.inside
    reach = (radius / 3).clamp(max=_LARGEST_STEP)[:, None]
    moved = (codes + reach * compute_repulsion(inside.to(codes.device), directions)).clamp(-rules.clip, rules.clip)
    stays = oracle(moved) == wanted
    state["codes"][rows] = torch.where(stays.to(codes.device)[:, None], moved, codes)
    state["radius"][rows] *= torch.where(grown, rules.expansion, 1.0).to(state["radius"])
    idle = torch.where(grown, 0, state["idle"][rows].cpu() + 1)
    state["idle"][rows] = idle.to(state["idle"].device)
    state["steps"][rows] += 1
    state["active"][rows] = (idle < rules.patience).to(state["active"].device)
    return bool(state["active"].any())


def compute_repulsion(inside: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Return the direction away from the points outside the class (equation 5, with 0 for points inside).

    Args:
        inside: Whether each point is classified as the class, N×P.
        directions: Unit vectors to the points, N×P×D.

    Returns:
        Minus the sum of the directions of the points outside, divided by P: N×D, zero if all are inside.
    """
    outside = (~inside).to(directions.dtype)[..., None]
    return -(outside * directions).mean(dim=1)
