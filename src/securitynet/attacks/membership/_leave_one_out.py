"""LiRA against each shadow model in turn, with all others as its shadow models: many targets, no further training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._confidence import check_finite_evidence
from securitynet.errors import ConfigurationError

FEWEST_MODELS = 8
"""Fewest models: with fewer, too few would be left on either side of a record."""


def score_each_model(
    signals: NDArray[np.float64], included: NDArray[np.bool_], *, balanced: bool, seed: int = 0
) -> NDArray[np.float64]:
    """Attack each model by online LiRA with a fixed variance, with the others as shadow models.

    Where each record is in equally many training sets, the model under attack takes one of them away: a member is then
    left with one model fewer on its side, and a non-member with one fewer on the other, and a model that remembers
    nothing would seem to tell them apart. One of the models of the opposite side, drawn at random, is therefore left
    out for each record, so that all are compared with equally many.

    Args:
        signals: Scaled confidence of each record under each model, M×N.
        included: Whether model m was trained on record n, M×N.
        balanced: Whether each record is in equally many training sets by design; training sets that were drawn
            independently need no such correction.
        seed: Determines which models are left out.

    Returns:
        Scores, M×N; higher means "more likely a member of this model".

    Raises:
        ConfigurationError: If there are fewer than `FEWEST_MODELS` models.
        TargetError: If a signal is not finite.
    """
    models = len(signals)
    if models < FEWEST_MODELS:
        raise ConfigurationError(
            f"{models} shadow models are too few to take the role of the target in turn; {FEWEST_MODELS} are needed.",
            hint="Train more with --shadows N.",
        )
    check_finite_evidence(signals[0], signals, included)
    random = np.random.default_rng([seed, 4])
    scores = np.empty(signals.shape)
    for target in range(models):
        others = np.delete(np.arange(models), target)
        inside, outside = included[others], ~included[others]
        if balanced:
            # For a member one of the models without it, for a non-member one of those with it.
            opposite = np.where(included[target], outside, inside)
            keys = np.where(opposite, random.random(opposite.shape), -1.0)
            drop = keys.argmax(axis=0)[None, :] == np.arange(len(others))[:, None]
            inside, outside = inside & ~drop, outside & ~drop
        scores[target] = _lira.compare_sides(signals[target], signals[others], inside, outside)
    return scores
