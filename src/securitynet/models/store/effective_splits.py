"""The splits of a protocol with those members that a model is trained on, and those of a model that was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.class_names import explain_difference
from securitynet.datasets.splits import Splits
from securitynet.errors import SplitError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.fit import hold_out_positions
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import set_aside


def compute_effective_splits(
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
        members = members[hold_out_positions(len(members), recipe)[0]]
    if canaries is not None:
        members = np.setdiff1d(members, canaries, assume_unique=True)
    return replace(made, members=members, known_members=np.intersect1d(made.known_members, members))


def restore_splits(trained: TargetRecord, dataset: ImageDataset, *, known: float | None = None) -> Splits:
    """The splits that a model was trained with: the members are exactly the records that it was trained on.

    Members that early stopping held out trained nothing, but they chose the epoch: they are neither members nor
    non-members, and are left out. So are those that a defense set aside, and those whose place canaries took.

    Args:
        trained: Record of the model.
        dataset: The dataset it was trained on.
        known: Share of members that the adversary knows; by default the one stated at training.

    Raises:
        SplitError: If the dataset is another one, or the split differs from that of the training.
    """
    stated = trained.split
    if trained.dataset.fingerprint != dataset.fingerprint:
        named = explain_difference(dataset.class_names, trained.class_names, ("now", "in training"))
        raise SplitError(
            f"This model was trained on {trained.dataset.reference}, in another version than {dataset.reference} as "
            f"loaded now, so its members are unknown.{f' {named}' if named else ''}",
            hint="Load the dataset as it was for training (same --channels, --image-size, --limit), or choose "
            "--split public or four-way yourself.",
        )
    canaries = None if trained.canaries is None else trained.canaries.indices
    made = compute_effective_splits(
        stated.protocol, dataset, stated.seed, stated.known, trained.recipe, stated.aside, canaries
    )
    if made.fingerprint != stated.fingerprint:
        raise SplitError(
            "The split that this model was trained with cannot be reproduced, so its members are unknown.",
            hint="Use the version of securitynet that trained it, or train it again.",
        )
    if known is None or known == stated.known:
        return made
    return compute_effective_splits(
        stated.protocol, dataset, stated.seed, known, trained.recipe, stated.aside, canaries
    )
