"""The relative attack on arrays: how often a record's likelihood ratio beats that of records of the population.

Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (2024), section 3. All in logarithms,
so that posteriors near 0 and near 1 lose nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from securitynet.attacks.membership._confidence import check_evidence
from securitynet.errors import ConfigurationError


def log_ratio_online(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Logarithm of Pr(x | θ) / Pr(x), with Pr(x) half the mean over models with and half that over models without x.

    A record with shadow models on one side only has the mean of those.

    Args:
        observed: Log-posterior of the true class under the target, N.
        shadows: The same under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.

    Returns:
        N.

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
    """Logarithm of Pr(x | θ) / Pr(x), with Pr(x) ≈ ((1 + a)·Pr(x)_out + (1 − a)) / 2.

    Only models without x are needed: Pr(x)_in is taken to be a·Pr(x)_out + 1 − a. With a = 1, Pr(x) is Pr(x)_out.

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


def counts(ratios: NDArray[np.float64], population: NDArray[np.float64], gamma: float = 1.0) -> NDArray[np.int64]:
    """For each record, how many z of the population it beats: those with ratio(x) / ratio(z) ≥ γ.

    One sort of the population and one binary search per record, instead of comparing each pair.

    Args:
        ratios: Log-ratios of the records, N.
        population: Log-ratios of records that the target was not trained on, Z.
        gamma: At least 1 in the paper; it moves all scores and leaves their order.

    Raises:
        ConfigurationError: If the population is empty.
    """
    if len(population) == 0:
        raise ConfigurationError("The relative attack needs records of the population to compare with; there are none.")
    # ratio(x) / ratio(z) ≥ γ means log ratio(z) ≤ log ratio(x) − log γ: the rank of the right-hand side in the sorted
    # population. side="right" counts equality, as the paper's ≥ does, so duplicates of x in the population are beaten
    # at γ = 1.
    beaten = np.searchsorted(np.sort(population), ratios - np.log(gamma), side="right")
    return np.asarray(beaten, dtype=np.int64)


def scores(
    ratios: NDArray[np.float64], population: NDArray[np.float64], gamma: float = 1.0, *, break_ties: bool = True
) -> NDArray[np.float64]:
    """The share of the population that each record beats, N in [0, 1] (equation 3).

    A count is one of Z + 1 numbers, and the records that beat all of the population are the ones that matter at a low
    FPR: with ``break_ties`` records of one count are put in the order of their ratios, which is the order that a larger
    population would show. Counts keep their order.
    """
    beaten = counts(ratios, population, gamma)
    if not break_ties:
        return beaten / len(population)
    # expit lies in [0, 1] and rises with the ratio, so it orders records within one count and never carries one past
    # the next count; dividing by Z + 1 keeps the score in [0, 1].
    return np.asarray((beaten + expit(ratios)) / (len(population) + 1), dtype=np.float64)


def _log_mean(shadows: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithm of the mean of the chosen posteriors of each record, N; NaN where none is chosen."""
    numbers = chosen.sum(axis=0)
    total = logsumexp(np.where(chosen, shadows, -np.inf), axis=0)
    return np.where(numbers > 0, total - np.log(np.maximum(numbers, 1)), np.nan)
