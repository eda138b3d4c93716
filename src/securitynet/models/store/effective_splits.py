"""`effective_splits`: the splits of a protocol with those members that a model is trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.models.training.fit import hold_out
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import set_aside


def effective_splits(
    protocol: str,
    dataset: ImageDataset,
    seed: int,
    known: float | None,
    recipe: Recipe,
    aside: float = 0.0,
    canaries: NDArray[np.int64] | None = None,
) -> Splits:
    """The splits of a protocol without members that a defense sets aside, early stopping holds out or canaries replace.

    Args:
        protocol: ``four-way`` or ``public``.
        dataset: The dataset.
        seed: Seed of the split.
        known: Share of members that an adversary with partial data knows; None for the protocol's default.
        recipe: The recipe, whose early stopping may hold records out.
        aside: Share of the members that the defense sets aside, in [0, 1).
        canaries: Members whose place canaries took, int64.

    Raises:
        SplitError: If the dataset cannot be split in this way.
        ConfigurationError: If there is no such protocol, or no records can be held out.
    """
    made = splits.make(protocol, dataset, seed=seed, known=known)
    if not recipe.patience and not aside and canaries is None:
        return made
    members = made.members[set_aside(len(made.members), aside, recipe.seed)[0]]
    if recipe.patience:
        members = members[hold_out(len(members), recipe)[0]]
    if canaries is not None:
        members = np.setdiff1d(members, canaries, assume_unique=True)
    return replace(made, members=members, known_members=np.intersect1d(made.known_members, members))
