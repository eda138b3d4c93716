"""RMIA on arrays: how often the likelihood ratio of a record exceeds that of records from the population.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3. Everything is computed
in logarithms, so that posteriors near 0 and 1 lose no precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from securitynet.attacks.membership._confidence import check_evidence
from securitynet.errors import ConfigurationError


def log_ratio_online(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the logarithm of Pr(x | θ) / Pr(x), where Pr(x) averages the means over models with x and without x.

    For a record whose shadow models are all of one kind, Pr(x) is the mean over those.

    Args:
        observed: Log-posterior of the true class under the target, N.
        shadows: The same under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.

    Returns:
        Log-ratios, N.

    Raises:
        TargetError: If shapes do not fit or a signal is NaN.
    """
    check_evidence(observed, shadows, included)
    inside, outside = _log_mean(shadows, included), _log_mean(shadows, ~included)
    inside, outside = np.where(np.isnan(inside), outside, inside), np.where(np.isnan(outside), inside, outside)
    prior = np.logaddexp(inside, outside) - np.log(2.0)
    return np.asarray(observed - prior, dtype=np.float64)


def log_ratio_offline(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_], a: float
) -> NDArray[np.float64]:
    """Return the logarithm of Pr(x | θ) / Pr(x), with Pr(x) ≈ ((1 + a)·Pr(x)_out + (1 − a)) / 2.

    Only models without x are needed: Pr(x)_in is approximated by a·Pr(x)_out + 1 − a. With a = 1, Pr(x) is Pr(x)_out.

    Args:
        observed: Log-posterior of the true class under the target, N.
        shadows: The same under the shadow models, M×N.
        included: M×N; only shadow models that were not trained on a record count for it.
        a: In [0, 1].

    Returns:
        N; NaN for records that all shadow models were trained on.

    Raises:
        TargetError: If shapes do not fit or a signal is NaN.
    """
    check_evidence(observed, shadows, included)
    outside = _log_mean(shadows, ~included)
    with np.errstate(divide="ignore"):
        prior = np.logaddexp(np.log(1 + a) + outside, np.log(1 - a)) - np.log(2.0)
    return np.asarray(observed - prior, dtype=np.float64)


def count_exceeded(
    ratios: NDArray[np.float64], population: NDArray[np.float64], gamma: float = 1.0
) -> NDArray[np.int64]:
    """Count, for each record x, the records z of the population with ratio(x) / ratio(z) ≥ γ.

    This takes one sort of the population and one binary search per record, instead of N×Z comparisons.

    Args:
        ratios: Log-ratios of the records, N.
        population: Log-ratios of records that the target was not trained on, Z.
        gamma: At least 1 in the paper; it shifts all scores and keeps their order.

    Raises:
        ConfigurationError: If the population is empty.
    """
    if len(population) == 0:
        raise ConfigurationError("RMIA needs records from the population to compare with; there are none.")
    # ratio(x) / ratio(z) ≥ γ is equivalent to log ratio(z) ≤ log ratio(x) − log γ. The number of such z is the rank of
    # the right-hand side in the sorted population. side="right" counts equality, as the paper's ≥ does, so with γ = 1 a
    # record exceeds its own duplicates in the population.
    beaten = np.searchsorted(np.sort(population), ratios - np.log(gamma), side="right")
    return np.asarray(beaten, dtype=np.int64)


def score_population_share(
    ratios: NDArray[np.float64], population: NDArray[np.float64], gamma: float = 1.0, *, break_ties: bool = True
) -> NDArray[np.float64]:
    """Return the share of the population that each record exceeds, N in [0, 1] (equation 3).

    A count takes one of Z + 1 values, and the records that exceed the whole population are the ones that matter at
    a low FPR. With ``break_ties``, records with equal counts are ordered by their ratios, which is the order that a
    larger population would show; records with different counts keep their order.

    Args:
        ratios: Log-ratios of the records, N.
        population: Log-ratios of records that the target was not trained on, Z.
        gamma: Factor by which a ratio must exceed another.
        break_ties: Whether to order records with equal counts by their ratios.
    """
    beaten = count_exceeded(ratios, population, gamma)
    if not break_ties:
        return beaten / len(population)
    # A log-ratio r is mapped monotonically to ±(1 - 1 / (1 + |r|)), in [-1, 1], so adding half of it to a half orders
    # records with equal counts and never lifts one above the next count. A logistic function would round to 1 from 37
    # on, which the most exposed records reach. Division by Z + 1 keeps the score in [0, 1].
    within = 0.5 + 0.5 * np.copysign(1 - 1 / (1 + np.abs(ratios)), ratios)
    return np.asarray((beaten + within) / (len(population) + 1), dtype=np.float64)


def _log_mean(shadows: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the logarithm of the mean of the chosen posteriors of each record, N; NaN if none is chosen."""
    numbers = chosen.sum(axis=0)
    total = logsumexp(np.where(chosen, shadows, -np.inf), axis=0)
    return np.where(numbers > 0, total - np.log(np.maximum(numbers, 1)), np.nan)
