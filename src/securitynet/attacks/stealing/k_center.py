"""k-center: query images that together cover the pool in the surrogate's embedding.

Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach" (2018), algorithm 1; for
model stealing: Pal et al., "ActiveThief" (2020), section 4.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.stealing._active import ActiveStealing, Known, compute_embeddings
from securitynet.models.targets.target import Target

_CHUNK = 2048


class KCenterStealing(ActiveStealing):
    """Greedy k-center on the surrogate's embeddings: the next image is the one farthest from all queried ones."""

    @override
    def choose(self, known: Known, selector: Target, number: int) -> None:
        rest = known.rest()
        queried = np.concatenate(known.records)
        centres = compute_embeddings(selector, known.pool, queried)
        known.query(rest[choose_k_centers(compute_embeddings(selector, known.pool, rest), centres, number)])


def choose_k_centers(points: torch.Tensor, centres: torch.Tensor, number: int) -> NDArray[np.int64]:
    """Choose points greedily, each the farthest from the centres and from the points chosen before it.

    Args:
        points: N×D float32.
        centres: M×D float32, at least one.
        number: How many to choose, at most N. A smaller number gives a prefix.

    Returns:
        Positions of the chosen points, int64; ties go to the first point.
    """
    squares = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    for part in torch.split(centres, _CHUNK):
        nearest = torch.minimum(nearest, torch.cdist(points, part).square().amin(dim=1))
    chosen = np.empty(number, dtype=np.int64)
    for place in range(number):
        farthest = int(nearest.argmax())
        chosen[place] = farthest
        # |x - c|² = |x|² - 2 x·c + |c|² takes one matrix product and no copy of all points.
        distances = torch.addmv(squares + squares[farthest], points, points[farthest], alpha=-2)
        nearest = torch.minimum(nearest, distances.clamp_min_(0))
        nearest[farthest] = -1.0
    return chosen
