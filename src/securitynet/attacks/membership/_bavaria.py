"""BaVarIA on arrays: likelihood ratios with Bayesian estimates of each record's mean and variance.

Brännvall, "Exponential-family membership inference: from LiRA and RMIA to BaVarIA" (2026). As in LiRA, the signals of
a record under the models that were trained on it, and under the others, are normal. Few models determine a variance
badly: LiRA takes one for all records or one each, and here a normal-inverse-gamma prior moves smoothly between the two.
The likelihood is then the predictive Student t distribution, or a normal distribution with the stabilised variance.

The parameters of the prior are those of this implementation, estimated from all records by moments, so that there is no
setting to tune: degrees of freedom and scale of the variances as in Smyth, "Linear models and empirical Bayes methods
for assessing differential expression in microarray experiments" (2004), section 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from securitynet.attacks.membership._confidence import check_finite_evidence
from securitynet.errors import ConfigurationError

Predictive = Literal["t", "normal"]

SMALLEST_VARIANCE = 1e-12
"""Lower bound of the scale of variances, for models that agree to the last digit."""

MOST_DEGREES = 1e6
"""Degrees of freedom of the prior if the variances of the records differ no more than by chance."""


@dataclass(frozen=True)
class Prior:
    """A normal-inverse-gamma distribution of the mean and variance of a record.

    Attributes:
        mean: Mean of the means.
        weight: Number of observations that it counts as for the mean, κ₀ > 0.
        degrees: Number of degrees of freedom that it counts as for the variance, 2·α₀ > 0.
        variance: Scale of the variance, β₀/α₀ > 0.
    """

    mean: float
    weight: float
    degrees: float
    variance: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """The predictive distribution of a new signal of each record, given the signals of its shadow models.

    Attributes:
        mean: Means, N.
        variance: Stabilised variances β/α of the signal around its own mean, N.
        weight: Observations that the means rest on, the prior's included, κ, N.
        degrees: Degrees of freedom of the variances, 2·α, N.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    weight: NDArray[np.float64]
    degrees: NDArray[np.float64]

    def log_density(self, values: NDArray[np.float64], predictive: Predictive) -> NDArray[np.float64]:
        """Return the logarithm of the predictive density at each record's value, N."""
        if predictive == "normal":
            return np.asarray(scipy.stats.norm.logpdf(values, self.mean, np.sqrt(self.variance)), dtype=np.float64)
        return np.asarray(scipy.stats.t.logpdf(values, self.degrees, self.mean, self._scale()), dtype=np.float64)

    def log_tail(self, values: NDArray[np.float64], predictive: Predictive) -> NDArray[np.float64]:
        """Return the logarithm of the probability of a larger value, N."""
        if predictive == "normal":
            return np.asarray(scipy.stats.norm.logsf(values, self.mean, np.sqrt(self.variance)), dtype=np.float64)
        standardised = (values - self.mean) / self._scale()
        return _log_t_tail(standardised, self.degrees)

    def _scale(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(self.variance * (1 + 1 / self.weight)), dtype=np.float64)


def fit_prior(signals: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Prior:
    """Estimate the prior of a group of shadow models from all records.

    Args:
        signals: Signals under the shadow models, M×N.
        chosen: Which shadow models count for which record, M×N.

    Raises:
        ConfigurationError: If no record has two chosen shadow models, so that no variance can be estimated.
    """
    counts, means, squares = _summarise(signals, chosen)
    several = counts > 1
    if not several.any():
        raise ConfigurationError(
            "The variance cannot be estimated: no record has two shadow models that were trained on it, "
            "or two that were not.",
            hint="Train more shadow models.",
        )
    freedom = counts[several] - 1
    pooled = max(float(squares[several].sum() / freedom.sum()), SMALLEST_VARIANCE)
    degrees, variance = _fit_variances(squares[several] / freedom, freedom, pooled)
    present = counts > 0
    # Var(mean of a record) = variance of the means + variance within / count; what the latter leaves is the former.
    between = float(np.var(means[present])) - pooled * float(np.mean(1 / counts[present]))
    weight = pooled / max(between, 1e-3 * pooled)
    return Prior(float(np.mean(means[present])), weight, degrees, variance)


def update(prior: Prior, signals: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Posterior:
    """Combine the prior with the signals of each record (Murphy, 2007, section 3: conjugate normal-inverse-gamma).

    Args:
        prior: Distribution of means and variances over records.
        signals: Signals under the shadow models, M×N.
        chosen: Which shadow models count for which record, M×N.
    """
    counts, means, squares = _summarise(signals, chosen)
    centre = np.where(counts > 0, means, prior.mean)
    weight = np.asarray(prior.weight + counts, dtype=np.float64)
    mean = (prior.weight * prior.mean + counts * centre) / weight
    degrees = np.asarray(prior.degrees + counts, dtype=np.float64)
    shift = prior.weight * counts / weight * (centre - prior.mean) ** 2
    variance = (prior.degrees * prior.variance + squares + shift) / degrees
    return Posterior(mean, variance, weight, degrees)


def score_online(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    predictive: Predictive = "t",
) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of "trained on the record" to "not trained on it".

    Args:
        observed: Signal under the target, N; `scaled_confidence` is approximately normal.
        shadows: The same signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
        predictive: ``t``, or ``normal`` with the stabilised variance.

    Returns:
        Scores, N; higher means "more likely a member".

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models to estimate a variance.
    """
    check_finite_evidence(observed, shadows, included)
    inside, outside = (update(fit_prior(shadows, chosen), shadows, chosen) for chosen in (included, ~included))
    # A record whose models are all of one kind has only the prior's mean on the other side, far from its own: as in
    # LiRA, the average gap between the two groups stands in for what is missing.
    counts = included.sum(axis=0)
    both = (counts > 0) & (counts < len(included))
    gap = float((inside.mean - outside.mean)[both].mean()) if both.any() else 0.0
    inside = _completed(inside, counts > 0, outside.mean + gap)
    outside = _completed(outside, counts < len(included), inside.mean - gap)
    return inside.log_density(observed, predictive) - outside.log_density(observed, predictive)


def score_offline(
    observed: NDArray[np.float64],
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    predictive: Predictive = "t",
) -> NDArray[np.float64]:
    """Return minus the log-probability that a model without the record gives a signal as high; one-sided.

    Args:
        observed: Signal under the target, N.
        shadows: The same signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N; only models not trained on it are used.
        predictive: See `score_online`.

    Returns:
        Scores, N, at least 0; NaN for records that all shadow models were trained on.

    Raises:
        TargetError: If shapes do not fit or a signal is not finite.
        ConfigurationError: If there are too few shadow models to estimate a variance.
    """
    check_finite_evidence(observed, shadows, included)
    outside = update(fit_prior(shadows, ~included), shadows, ~included)
    return np.where(included.all(axis=0), np.nan, -outside.log_tail(observed, predictive))


def _completed(posterior: Posterior, present: NDArray[np.bool_], mean: NDArray[np.float64]) -> Posterior:
    """Replace the mean of records without a model in this group; it counts as one observation."""
    weight = np.where(present, posterior.weight, 1.0)
    return Posterior(np.where(present, posterior.mean, mean), posterior.variance, weight, posterior.degrees)


def _summarise(
    signals: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return number, mean (0 if there are none) and sum of squared deviations of each record's signals, N each."""
    counts = chosen.sum(axis=0)
    means = np.where(chosen, signals, 0.0).sum(axis=0) / np.maximum(counts, 1)
    squares = np.where(chosen, (signals - means) ** 2, 0.0).sum(axis=0)
    return counts, means, squares


def _fit_variances(variances: NDArray[np.float64], freedom: NDArray[np.int64], pooled: float) -> tuple[float, float]:
    """Return degrees of freedom and scale of the prior of the variances (Smyth, 2004, section 6.2).

    Log-variances spread by ψ′(d/2) if all records have the same variance, and by ψ′(d₀/2) more if these follow a scaled
    inverse χ² distribution with d₀ degrees of freedom.

    Args:
        variances: Sample variances, one per record.
        freedom: Their degrees of freedom.
        pooled: Variance over all records, in case the spread is no larger than by chance.
    """
    half = freedom / 2
    logs = np.log(np.maximum(variances, SMALLEST_VARIANCE)) - special.digamma(half) + np.log(half)
    spread = float(np.var(logs, ddof=1)) - float(np.mean(special.polygamma(1, half))) if len(logs) > 1 else 0.0
    if spread <= special.polygamma(1, MOST_DEGREES / 2):
        return MOST_DEGREES, pooled

    def excess(log_half: float) -> float:
        return float(special.polygamma(1, np.exp(log_half))) - spread

    half_degrees = float(np.exp(scipy.optimize.brentq(excess, np.log(1e-3), np.log(MOST_DEGREES / 2))))
    scale = float(np.exp(np.mean(logs) + special.digamma(half_degrees) - np.log(half_degrees)))
    return 2 * half_degrees, max(scale, SMALLEST_VARIANCE)


def _log_t_tail(values: NDArray[np.float64], degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log P(T > value) of Student's t distribution; far in the tail from the leading term of its expansion."""
    with np.errstate(divide="ignore"):
        logs = scipy.stats.t.logsf(values, degrees)
    far = ~np.isfinite(logs)
    if far.any():
        # The density falls as x^(−d − 1), so what lies beyond x is about x / d times the density there.
        density = scipy.stats.t.logpdf(values[far], degrees[far])
        logs[far] = density + np.log(values[far]) - np.log(degrees[far])
    return np.asarray(logs, dtype=np.float64)
