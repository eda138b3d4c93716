"""The likelihood-ratio attack on arrays: from signals of a target and of shadow models to scores, without any model.

Carlini et al., "Membership inference attacks from first principles" (2022), sections 4 and 5. The signal of a record
under shadow models that were trained on it, and under those that were not, is taken to be normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership._confidence import check_evidence
from securitynet.errors import ConfigurationError, TargetError

Variance = Literal["fixed", "per-record"]

SMALLEST_SPREAD = 1e-6
"""Standard deviations are at least this: shadow models that agree to the last digit must not divide by 0."""


@dataclass(frozen=True, eq=False)
class Normals:
    """One normal distribution per record.

    Attributes:
        mean: N; NaN for records without a shadow model in this group.
        spread: Standard deviation, N.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def log_density(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of the density at each record's value, up to one constant for all, N."""
        return np.asarray(-0.5 * ((values - self.mean) / self.spread) ** 2 - np.log(self.spread), dtype=np.float64)


def fit(signals: NDArray[np.float64], chosen: NDArray[np.bool_], variance: Variance) -> Normals:
    """A normal for each record, from the chosen shadow models.

    The ``fixed`` variance is one for all records, pooled after the records' own means are taken out: the spread between
    records is no part of it. ``per-record`` variances are the records' own where they have two shadow models or
    more; others get the fixed one.

    Args:
        signals: M×N.
        chosen: Which shadow models count for which record, M×N.
        variance: See above.

    Raises:
        ConfigurationError: If no record has two chosen shadow models, so that no spread can be told.
    """
    counts = chosen.sum(axis=0)
    if not (counts > 1).any():
        raise ConfigurationError(
            "The spread of a signal can't be told: no record has two shadow models that were trained on it, "
            "or two that were not.",
            hint="Train more shadow models.",
        )
    with np.errstate(invalid="ignore"):
        mean = np.where(chosen, signals, 0.0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
        squares = np.where(chosen, (signals - mean) ** 2, 0.0).sum(axis=0)
    pooled = np.sqrt(squares[counts > 1].sum() / (counts[counts > 1] - 1).sum())
    spread = np.full(len(mean), pooled)
    if variance == "per-record":
        own = counts > 1
        spread[own] = np.sqrt(squares[own] / (counts[own] - 1))
    return Normals(mean, np.maximum(spread, SMALLEST_SPREAD))


def online(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    variance: Variance = "fixed",
) -> NDArray[np.float64]:
    """Logarithm of the likelihood ratio of "trained on it" over "not trained on it" (algorithm 1).

    A record that is in the training sets of all shadow models, or of none, lacks one of its two means. It gets the
    other plus or minus the average gap between the two, over the records that have both.

    Args:
        observed: Signal of the target, N; `scaled_confidence` is the one that is close to normal.
        shadows: The same signal of the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
        variance: ``fixed`` is better below some 64 shadow models (section 6.3).

    Returns:
        N, higher meaning "more likely a member"; 0 where both are as likely.

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models for a spread.
    """
    _check(observed, shadows, included)
    inside, outside = fit(shadows, included, variance), fit(shadows, ~included, variance)
    gap = float(np.nanmean(inside.mean - outside.mean)) if np.isfinite(inside.mean - outside.mean).any() else 0.0
    means = (
        np.where(np.isnan(inside.mean), outside.mean + gap, inside.mean),
        np.where(np.isnan(outside.mean), inside.mean - gap, outside.mean),
    )
    completed = Normals(means[0], inside.spread), Normals(means[1], outside.spread)
    return completed[0].log_density(observed) - completed[1].log_density(observed)


def offline(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    variance: Variance = "fixed",
) -> NDArray[np.float64]:
    """One-sided: by how many standard deviations the signal is above what models without the record give (section 5.2).

    The paper's score is the normal distribution function of this; the number of deviations ranks alike and does not
    round to 1.

    Args:
        observed: Signal of the target, N.
        shadows: M×N.
        included: M×N; only shadow models that were not trained on a record count for it.
        variance: See `fit`.

    Returns:
        N; NaN for records that all shadow models were trained on.

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models for a spread.
    """
    _check(observed, shadows, included)
    outside = fit(shadows, ~included, variance)
    return (observed - outside.mean) / outside.spread


def _check(observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]) -> None:
    check_evidence(observed, shadows, included)
    if not (np.isfinite(observed).all() and np.isfinite(shadows).all()):
        raise TargetError("A signal is not finite: the target or a shadow model gives a posterior of exactly 0 or 1.")
