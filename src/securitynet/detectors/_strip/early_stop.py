"""Prediction of the remaining overlays of STRIP from the first ones, with a margin measured on clean images.

Mean entropies of superpositions are positive and skewed like gamma variables, whose cube roots are nearly normal
(Wilson and Hilferty, 1931). So the cube root of the mean over the remaining overlays is regressed on that over the
first ones, once for each number of overlays, and all margins are in cube roots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

FEWEST_KNOWN = 20
"""Smallest number of clean images for predictions."""

FEWEST_SEEN = 4
"""Smallest number of overlays from which the others are predicted."""

DEVIATIONS = 4.0
"""Size of the margin in normal standard deviations; with few images, the Student quantile of the same probability."""

BEYOND = 1.25
"""The margin is at least this multiple of the largest shortfall of a clean image left out of the fit."""


@dataclass(frozen=True, eq=False)
class EarlyStopPredictor:
    """Nearly certain lower bounds for the mean entropy under the remaining overlays of an image.

    Attributes:
        intercepts: Intercepts of the regressions, by the number of overlays used, from 0 to K.
        slopes: Slopes of the regressions.
        margins: Margins in cube roots of bits; infinite where nothing is predicted.
        known: Number of clean images that they are fitted to.
    """

    intercepts: torch.Tensor
    slopes: torch.Tensor
    margins: torch.Tensor
    known: int

    @classmethod
    def measured(cls, entropies: NDArray[np.float64]) -> EarlyStopPredictor | None:
        """Fit the regressions and their margins; None if nothing can be predicted.

        Args:
            entropies: Entropies of clean images under all their overlays, in the order of the queries, N×K.
        """
        known, count = entropies.shape
        intercepts, slopes = np.zeros(count + 1), np.zeros(count + 1)
        margins = np.full(count + 1, np.inf)
        if known < FEWEST_KNOWN:
            return None
        seen = np.cumsum(entropies, axis=1)
        wide = float(scipy.stats.t.isf(scipy.stats.norm.sf(DEVIATIONS), known - 2))
        for number in range(FEWEST_SEEN, count):
            x = np.cbrt(seen[:, number - 1] / number)
            y = np.cbrt(np.maximum(seen[:, -1] - seen[:, number - 1], 0.0) / (count - number))
            centred = x - x.mean()
            spread = float((centred**2).sum())
            if spread < 1e-9 * known:
                continue  # without variation there is nothing to regress on
            slope = max(float((centred * y).sum()) / spread, 0.0)
            intercept = float(y.mean()) - slope * float(x.mean())
            # Leave-one-out residuals.
            errors = (y - intercept - slope * x) / (1 - 1 / known - centred**2 / spread).clip(1e-3)
            deviation = float(np.sqrt((errors**2).sum() / (known - 2)))
            if deviation > 1e-6:
                intercepts[number], slopes[number] = intercept, slope
                margins[number] = max(wide * deviation, BEYOND * float(-errors.min()))
        if np.isinf(margins).all():
            return None
        return cls(torch.from_numpy(intercepts), torch.from_numpy(slopes), torch.from_numpy(margins), known)

    def totals(self, seen: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sums over all overlays: the prediction, and a bound that is nearly certain to be reached, N×S each.

        Where nothing is predicted, both are the sums so far.

        Args:
            seen: Sums of the entropies so far, N×S.
            numbers: Number of overlays in each column of sums, S, from 1 to K.
        """
        means, margins = seen / numbers, self.margins[numbers]
        roots = self.intercepts[numbers] + self.slopes[numbers] * means.clamp(min=0) ** (1 / 3)
        roots = roots.where(margins.isfinite(), 0.0)
        # Those that tell most come first, so none is credited with more than it has shown.
        left = len(self.margins) - 1 - numbers
        predicted, least = (torch.minimum(part.clamp(min=0) ** 3, means) for part in (roots, roots - margins))
        return seen + left * predicted, seen + left * least
