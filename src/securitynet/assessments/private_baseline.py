"""DP-SGD tuned for utility: what any other defense has to beat.

Aerni, Zhang and Tramèr (CCS 2024, section 4.3) compare defenses without a guarantee with DP-SGD that is tuned like any
other training, with so little noise that its own guarantee says nothing: at the same accuracy, it protected the worst
records better than all five defenses that they tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.defenses.dp_sgd import DpSgd
from securitynet.models.shadows.store import specify_shadow
from securitynet.models.store.cached_model import ModelSpec
from securitynet.models.training.recipe import Recipe

NOISE_MULTIPLIERS = (1.0, 0.3, 0.1)
LEARNING_RATES = (0.03, 0.1)
VALIDATION_SHARE = 0.25
"""Share of the members that the candidates are not trained on, and compared on."""

CANDIDATES = len(NOISE_MULTIPLIERS) * len(LEARNING_RATES)


@dataclass(frozen=True)
class NoiseCandidate:
    """A setting of DP-SGD.

    Attributes:
        defense: The defense.
        recipe: The recipe that it is trained with.
    """

    defense: DpSgd
    recipe: Recipe


def list_candidates(recipe: Recipe) -> list[NoiseCandidate]:
    """List the settings that are compared.

    Args:
        recipe: The recipe of the target.
    """
    candidates = []
    for noise, rate in itertools.product(NOISE_MULTIPLIERS, LEARNING_RATES):
        defense = DpSgd(noise_multiplier=noise)
        changed = recipe.model_copy(update={**defense.advised({}), "learning_rate": rate})
        candidates.append(NoiseCandidate(defense, changed))
    return candidates


def tune_for_utility(
    candidates: Sequence[NoiseCandidate],
    dataset: ImageDataset,
    members: NDArray[np.int64],
    architecture: str,
    measure_accuracies: Callable[[list[ModelSpec], NDArray[np.int64]], list[float]],
    seed: int,
) -> NoiseCandidate:
    """Return the candidate with the most noise whose accuracy is within one standard error of the best.

    The accuracy is that on members on which none of the candidates is trained; non-members are left for the report.

    Args:
        candidates: Settings, at least one.
        dataset: The dataset.
        members: Members of the target.
        architecture: What the models are built from.
        measure_accuracies: Trains models and returns their accuracies on records.
        seed: Determines which members are left out.
    """
    order = shuffle(len(members), "validation of dp-sgd", seed)
    count = max(1, round(len(members) * VALIDATION_SHARE))
    validation, training = np.sort(members[order[:count]]), np.sort(members[order[count:]])
    specs = [specify_shadow(dataset, training, architecture, one.recipe, one.defense) for one in candidates]
    accuracies = measure_accuracies(specs, validation)
    best = max(accuracies)
    allowed = best - math.sqrt(best * (1 - best) / count)
    good = [number for number, accuracy in enumerate(accuracies) if accuracy >= allowed]
    return candidates[max(good, key=lambda at: (candidates[at].defense.noise_multiplier or 0.0, accuracies[at]))]
