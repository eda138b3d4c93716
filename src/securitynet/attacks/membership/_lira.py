"""The likelihood-ratio attack on arrays: scores from the signals of a target and of shadow models.

Carlini et al., "Membership inference attacks from first principles" (2022), sections 4 and 5. The signals of a record
under shadow models that were trained on it, and under those that were not, are modelled as normal distributions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership._confidence import check_finite_evidence
from securitynet.errors import ConfigurationError

Variance = Literal["fixed", "per-record"]

SMALLEST_SPREAD = 1e-6
"""Lower bound of standard deviations; without it, shadow models that agree to the last digit divide by 0."""

FEWEST_FOR_OWN_VARIANCE = 16
"""Number of shadow models, half of which count, from which on a record has a variance of its own."""


@dataclass(frozen=True, eq=False)
class Normals:
    """One normal distribution per record.

    Attributes:
        mean: Means, N; NaN for records without a shadow model in this group.
        spread: Standard deviations, N.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def log_density(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithm of the density at each record's value, N, up to a common constant."""
        return np.asarray(-0.5 * ((values - self.mean) / self.spread) ** 2 - np.log(self.spread), dtype=np.float64)


def settle_variance(variance: Variance, count: int) -> tuple[Variance, tuple[str, ...]]:
    """Return the kind of variance for a number of shadow models, and a note if it is not the wanted one.

    A variance of two or three signals is wrong by orders of magnitude, and the records for which it is much too small
    take the highest scores.
    """
    if variance == "fixed" or count >= FEWEST_FOR_OWN_VARIANCE:
        return variance, ()
    note = (
        f"With {count} shadow models, fewer than {FEWEST_FOR_OWN_VARIANCE}, no record has enough of them for a "
        "variance of its own: the fixed variance was used instead."
    )
    return "fixed", (note,)


def fit_normals(signals: NDArray[np.float64], chosen: NDArray[np.bool_], variance: Variance) -> Normals:
    """Fit a normal distribution for each record to the chosen shadow models.

    The ``fixed`` variance is common to all records and is pooled after subtracting each record's own mean, so the
    spread between records is not part of it. ``per-record`` variances are those of each record where it has at least
    two shadow models; other records get the fixed variance.

    Args:
        signals: Signals under the shadow models, M×N.
        chosen: Which shadow models count for which record, M×N.
        variance: Kind of variance, see above.

    Raises:
        ConfigurationError: If no record has two chosen shadow models, so that the variance cannot be estimated.
    """
    counts = chosen.sum(axis=0)
    if not (counts > 1).any():
        raise ConfigurationError(
            "The variance cannot be estimated: no record has two shadow models that were trained on it, "
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


def compute_online_ratio(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    variance: Variance = "fixed",
) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of "trained on the record" to "not trained on it" (algorithm 1).

    A record in the training sets of all shadow models, or of none, lacks one of its two means. The missing mean is set
    to the other plus or minus the average gap between the two, over the records that have both.

    Args:
        observed: Signal under the target, N; `scaled_confidence` is approximately normal.
        shadows: The same signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
        variance: See `fit_normals`; ``fixed`` is better with fewer than about 64 shadow models (section 6.3).

    Returns:
        Scores, N; higher means "more likely a member", and 0 that both are equally likely.

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models to estimate a variance.
    """
    check_finite_evidence(observed, shadows, included)
    return compare_sides(observed, shadows, included, ~included, variance=variance)


def compare_sides(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    with_record: NDArray[np.bool_],
    without_record: NDArray[np.bool_],
    *,
    variance: Variance = "fixed",
) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of `compute_online_ratio` from chosen shadow models on both sides of a record.

    Args:
        observed: Signal under the target, N.
        shadows: The same signal under the shadow models, M×N.
        with_record: Which shadow models that were trained on the record count, M×N.
        without_record: Which of the others count, M×N.
        variance: See `fit_normals`.

    Raises:
        ConfigurationError: If there are too few shadow models to estimate a variance.
    """
    inside, outside = fit_normals(shadows, with_record, variance), fit_normals(shadows, without_record, variance)
    gap = float(np.nanmean(inside.mean - outside.mean)) if np.isfinite(inside.mean - outside.mean).any() else 0.0
    means = (
        np.where(np.isnan(inside.mean), outside.mean + gap, inside.mean),
        np.where(np.isnan(outside.mean), inside.mean - gap, outside.mean),
    )
    completed = Normals(means[0], inside.spread), Normals(means[1], outside.spread)
    return completed[0].log_density(observed) - completed[1].log_density(observed)


def compute_offline_score(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    variance: Variance = "fixed",
) -> NDArray[np.float64]:
    """Return by how many standard deviations the signal exceeds that of models without the record (section 5.2).

    The score is one-sided. The paper applies the normal distribution function to it; the number of deviations has the
    same ranking and does not round to 1.

    Args:
        observed: Signal under the target, N.
        shadows: The same signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N; only models not trained on it are used.
        variance: See `fit_normals`.

    Returns:
        Scores, N; NaN for records that all shadow models were trained on.

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models to estimate a variance.
    """
    check_finite_evidence(observed, shadows, included)
    outside = fit_normals(shadows, ~included, variance)
    return (observed - outside.mean) / outside.spread
