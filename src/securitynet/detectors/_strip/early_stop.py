"""What the overlays seen say about the others: a prediction for STRIP, with a margin measured on clean images.

Mean entropies of superpositions are positive and skewed, much as gamma variables are, which cube roots make nearly
normal (Wilson and Hilferty, 1931). So the cube root of the mean of the overlays left is regressed on that of those
seen, once for each number of overlays, and all margins are in cube roots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

FEWEST_KNOWN = 20
"""Clean images without which nothing is predicted."""

FEWEST_SEEN = 4
"""Overlays that an image must have shown before anything is predicted about the others."""

DEVIATIONS = 4.0
"""Of the margin; what is as rare as so many deviations of a normal variable, where few images are known."""

BEYOND = 1.25
"""The margin is at least so many times the largest shortfall of a clean image that the fit did not see."""


@dataclass(frozen=True, eq=False)
class EarlyStopPredictor:
    """Lower bounds, nearly certain, for the mean entropy under the overlays that an image has not been seen under.

    Attributes:
        intercepts: Of the regressions, by the number of overlays seen, from 0 to K.
        slopes: Likewise.
        margins: Likewise, in cube roots of bits; infinite where nothing is predicted.
        known: Clean images that they come from.
    """

    intercepts: torch.Tensor
    slopes: torch.Tensor
    margins: torch.Tensor
    known: int

    @classmethod
    def measured(cls, entropies: NDArray[np.float64]) -> EarlyStopPredictor | None:
        """Regressions and their margins, or None where nothing can be predicted.

        Args:
            entropies: Of clean images under all their overlays, in the order in which those are asked about, N×K.
        """
        known, count = entropies.shape
        intercepts, slopes = np.zeros(count + 1), np.zeros(count + 1)
        margins = np.full(count + 1, np.inf)
        if known < FEWEST_KNOWN:
            return None
        seen = np.cumsum(entropies, axis=1)
        wide = float(stats.t.isf(stats.norm.sf(DEVIATIONS), known - 2))
        for number in range(FEWEST_SEEN, count):
            x = np.cbrt(seen[:, number - 1] / number)
            y = np.cbrt(np.maximum(seen[:, -1] - seen[:, number - 1], 0.0) / (count - number))
            centred = x - x.mean()
            spread = float((centred**2).sum())
            if spread < 1e-9 * known:
                continue  # images that are all alike tell nothing about others
            slope = max(float((centred * y).sum()) / spread, 0.0)
            intercept = float(y.mean()) - slope * float(x.mean())
            # Each image as the fit to the others would miss it.
            errors = (y - intercept - slope * x) / (1 - 1 / known - centred**2 / spread).clip(1e-3)
            deviation = float(np.sqrt((errors**2).sum() / (known - 2)))
            if deviation > 1e-6:
                intercepts[number], slopes[number] = intercept, slope
                margins[number] = max(wide * deviation, BEYOND * float(-errors.min()))
        if np.isinf(margins).all():
            return None
        return cls(torch.from_numpy(intercepts), torch.from_numpy(slopes), torch.from_numpy(margins), known)

    def totals(self, seen: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over all overlays: as predicted, and such as an image's own is nearly sure to reach, both N×S.

        Where nothing is predicted both are what was seen.

        Args:
            seen: Sums of the entropies seen, N×S.
            numbers: Of the overlays in each column of sums, S, from 1 to K.
        """
        means, margins = seen / numbers, self.margins[numbers]
        roots = self.intercepts[numbers] + self.slopes[numbers] * means.clamp(min=0) ** (1 / 3)
        roots = roots.where(margins.isfinite(), 0.0)
        # Those that tell most come first, so none is credited with more than it has shown.
        left = len(self.margins) - 1 - numbers
        predicted, least = (torch.minimum(part.clamp(min=0) ** 3, means) for part in (roots, roots - margins))
        return seen + left * predicted, seen + left * least
