"""Uncertainty sampling: query the images of which the surrogate is least certain.

Lewis and Gale (1994); for model stealing: Pal et al., "ActiveThief" (2020), section 4.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.stealing._active import ActiveStealing, Known, compute_outputs
from securitynet.models.targets.target import Target

Measure = Literal["entropy", "margin", "confidence"]


class UncertaintyStealing(ActiveStealing):
    """Active stealing with the images whose posteriors under the surrogate are least certain."""

    measure: Measure = Field(
        default="entropy",
        description="Of the surrogate's posteriors: their entropy, the margin between the two largest, or the largest.",
    )

    @override
    def choose(self, known: Known, selector: Target, number: int) -> None:
        rest = known.rest()
        doubt = measure_uncertainty(compute_outputs(selector, known.pool, rest).posteriors, self.measure)
        known.query(rest[np.argsort(-doubt, kind="stable")[:number]])


def measure_uncertainty(posteriors: NDArray[np.floating], measure: Measure) -> NDArray[np.float64]:
    """Return the uncertainty of each row of posteriors (N×K), N; higher is less certain."""
    values = posteriors.astype(np.float64)
    if measure == "entropy":
        return np.asarray(-(values * np.log(np.maximum(values, 1e-300))).sum(axis=1))
    largest = np.sort(values, axis=1)
    if measure == "margin":
        return np.asarray(largest[:, -2] - largest[:, -1])
    return np.asarray(-largest[:, -1])
