"""Two input filters as one: an image is stopped if either stops it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.detectors._fitted_filter import FittedFilter
from securitynet.detectors._queries import Arrays


class FittedBoth(FittedFilter):
    """Stops an image if one of its filters does; the score is the largest of their scores on a common scale.

    A filter's score is expressed as its distance to the filter's threshold, in standard deviations of the scores of the
    clean images that the threshold was chosen from. The common threshold is therefore 0.

    Args:
        filters: Fitted filters of one target by name, each calibrated on the same clean images.
        nominal: False rejection rate of both together.
    """

    def __init__(self, filters: Mapping[str, FittedFilter], nominal: float) -> None:
        self.filters = dict(filters)
        first = next(iter(self.filters.values()))
        self.client, self.piece, self.columns = first.client, first.piece, first.columns
        self.threshold, self.nominal = 0.0, nominal
        self.exact = all(fitted.exact for fitted in self.filters.values())
        self.notes = tuple(f"{name}: {note}" for name, fitted in self.filters.items() for note in fitted.notes)
        self.calibration = np.max([_rescale(one, one.calibration) for one in self.filters.values()], axis=0)

    @override
    def examine(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        examined = {name: fitted.examine(images, rows, purpose) for name, fitted in self.filters.items()}
        scores = [_rescale(self.filters[name], arrays["scores"]) for name, arrays in examined.items()]
        return {
            "scores": np.max(scores, axis=0),
            "flagged": np.any([arrays["flagged"] for arrays in examined.values()], axis=0),
            "asked": np.sum([arrays["asked"] for arrays in examined.values()], axis=0),
            **{f"scores by {name}": arrays["scores"] for name, arrays in examined.items()},
        }

    @override
    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Pictures of the filter that suspects the image more."""
        names = list(self.filters)
        scores = [_rescale(self.filters[name], verdicts[f"scores by {name}"])[0] for name in names]
        return self.filters[names[int(np.argmax(scores))]].pictures(image, verdicts, row, purpose)


def _rescale(fitted: FittedFilter, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = float(fitted.calibration.std()) or 1.0
    return np.asarray((scores - fitted.threshold) / spread)
