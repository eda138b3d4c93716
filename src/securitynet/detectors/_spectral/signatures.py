"""Spectral signatures of the records of each class, and the verdicts based on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.base import Output
from securitynet.metrics import clusters, rates
from securitynet.records import Direction, Measurement


def compute_scores(
    training: NDArray[np.float32], clean: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared projections on the direction of the largest variance among the training records (Tran et al., section 4).

    The paper centres at the mean of the training records. Here it is the mean of clean images, because the other moves
    towards the poisoned records and, where they are half of the class, lies between the two groups.

    Args:
        training: Embeddings of the training records of a class, N×D.
        clean: Embeddings of clean images of the class, M×D.

    Returns:
        The scores of the training records, N, and of the clean images, M.
    """
    first, second = training.astype(np.float64), clean.astype(np.float64)
    direction = np.linalg.svd(first - first.mean(axis=0), full_matrices=False)[2][0]
    centre = second.mean(axis=0)
    return np.square((first - centre) @ direction), np.square((second - centre) @ direction)


@dataclass(frozen=True, eq=False)
class Signatures(Output):
    """Spectral signatures of training records.

    Attributes:
        indices: Training records, N int64.
        labels: Classes that they were trained with, N.
        scores: Their scores, N; NaN in classes that were not tested.
        beyond: Whether each lies beyond all clean images of its class, N.
        classes: The classes, K int64.
        p_values: p-values of the classes without correction, K; NaN where a class was not tested.
        poisoned: Whether each record is poisoned, N; None if unknown.
    """

    headline: ClassVar[tuple[str, ...]] = ("spectral-p-value", "detection-rate", "suspect-records")

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    beyond: NDArray[np.bool_]
    classes: NDArray[np.int64]
    p_values: NDArray[np.float64]
    poisoned: NDArray[np.bool_] | None = None

    def judge(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the p-values corrected by Holm's method, K, and whether each record is suspect, N."""
        tested = int((~np.isnan(self.p_values)).sum())
        p_values = clusters.adjusted(np.nan_to_num(self.p_values, nan=1.0), tested)
        at = np.searchsorted(self.classes, self.labels)
        return p_values, np.asarray(self.beyond & (p_values[at] < clusters.ALPHA))

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Signatures:
        return cls(**arrays)

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        p_values, suspect = self.judge()
        tested = ~np.isnan(self.p_values)
        count = int(tested.sum())
        low, high = Direction.LOWER, Direction.HIGHER
        if not count:
            why = "no class has enough records to be tested"
            return [
                Measurement(
                    name="spectral-p-value", value=None, level=level, n=0, direction=high, method="none", note=why
                )
            ]
        smallest = float(p_values[tested].min())
        measurements = [
            Measurement(
                name="spectral-p-value",
                value=smallest,
                low=smallest,
                high=smallest,
                level=level,
                n=count,
                direction=high,
                method="precedence test of each class, Holm's correction",
            ),
            rates.rate("suspect-records", int(suspect.sum()), len(suspect), direction=low, level=level),
        ]
        if self.poisoned is not None and self.poisoned.any() and not self.poisoned.all():
            caught, stopped = int(suspect[self.poisoned].sum()), int(suspect[~self.poisoned].sum())
            measurements += [
                rates.rate("detection-rate", caught, int(self.poisoned.sum()), direction=high, level=level),
                rates.rate("false-rejection-rate", stopped, int((~self.poisoned).sum()), direction=low, level=level),
            ]
        return measurements
