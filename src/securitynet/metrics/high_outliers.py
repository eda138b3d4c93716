"""Is the largest of K class statistics larger than the others would lead one to expect?

Two tests of the largest value against the other K - 1:

- **Grubbs' test** (Technometrics 11, 1969) in the form of the externally studentised deviate: with mean m and standard
  deviation s of the other values, t = (largest - m) / (s·√(1 + 1/(K - 1))) has a t distribution with K - 2 degrees of
  freedom if all values are normal draws and the position was chosen beforehand. It was not, so the p-value is K times
  the tail (Bonferroni): never too small for normal draws, and exact where t is large. Skewed draws exceed the level.
- **The gamma test** of MM-BD (Wang et al., 2024, section IV-B): a gamma distribution G is fitted to the other values,
  and p = 1 - G(largest)^K. It does not hold its level, because the largest value takes no part in the fit, and the
  fit is uncertain: at 5% it rejects about a quarter of sets of 10 draws of a gamma distribution.

Both tests look for one class. Where most classes are targets, as in an all-to-all backdoor, none of them stands out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]

FEWEST = 4
"""Values without which the tests are not computed: the others must have a variance that can be estimated."""


@dataclass(frozen=True)
class HighOutlier:
    """The result of Grubbs' test.

    Attributes:
        position: Position of the largest value.
        deviate: Externally studentised deviate of the largest value; infinite where the others are all equal.
        p_value: In (0, 1].
    """

    position: int
    deviate: float
    p_value: float


def find_high_outlier(values: Values) -> HighOutlier | None:
    """Test the largest of K values against the others.

    Args:
        values: K finite values; logarithms of positive ones whose logarithms are closer to normal draws.

    Returns:
        None with fewer than `FEWEST` values, or where all are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count < FEWEST or np.ptp(values) == 0:
        return None
    position = int(values.argmax())
    others = np.delete(values, position)
    deviation = float(others.std(ddof=1)) * np.sqrt(1 + 1 / len(others))
    lead = float(values[position] - others.mean())
    if deviation == 0:
        return HighOutlier(position, float("inf"), float(np.finfo(np.float64).tiny))
    deviate = lead / deviation
    p_value = min(1.0, count * float(scipy.stats.t.sf(deviate, count - 2)))
    return HighOutlier(position, float(deviate), max(p_value, float(np.finfo(np.float64).tiny)))


def compute_gamma_p_value(values: Values) -> float | None:
    """MM-BD's p-value of the largest of K positive values.

    The two parameters of the gamma distribution are those of the largest likelihood; the location stays at 0.

    Args:
        values: K finite values.

    Returns:
        None with fewer than `FEWEST` values, if one is not positive, or if all but the largest are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < FEWEST or (values <= 0).any():
        return None
    others = np.delete(values, int(values.argmax()))
    gap = float(np.log(others.mean()) - np.log(others).mean())
    if gap < 1e-12:
        return None
    # log(shape) - digamma(shape) falls from infinity to 0, so there is one root; it lies between 1/(2·gap) and 1/gap.
    shape = float(scipy.optimize.brentq(lambda a: np.log(a) - special.digamma(a) - gap, 0.4 / gap, 1.1 / gap))
    tail = float(scipy.stats.gamma.sf(values.max(), shape, scale=others.mean() / shape))
    return float(-np.expm1(len(values) * np.log1p(-min(tail, 1 - 1e-16))))
