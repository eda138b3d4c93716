"""The output of detectors that test each class of the training data against clean images of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.output import Output
from securitynet.metrics import clusters, rates
from securitynet.records import Direction, Measurement


@dataclass(frozen=True, eq=False)
class ClassTests(Output):
    """Tests of the classes of the training data, and scores of their records.

    Class attributes:
        p_value_name: Name of the measurement of the smallest p-value.
        method: The test, for the reader.

    Attributes:
        indices: Training records, N int64.
        labels: Classes that they were trained with, N.
        scores: Their scores, N; NaN in classes that were not tested.
        beyond: Whether each lies beyond all clean images of its class, N.
        classes: The classes, K int64.
        p_values: p-values of the classes without correction, K; NaN where a class was not tested.
        poisoned: Whether each record is poisoned, N; None if unknown.
    """

    p_value_name: ClassVar[str]
    method: ClassVar[str]

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
        p_values = clusters.correct_for_clusters(np.nan_to_num(self.p_values, nan=1.0), tested)
        at = np.searchsorted(self.classes, self.labels)
        return p_values, np.asarray(self.beyond & (p_values[at] < clusters.ALPHA))

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
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
                    name=self.p_value_name, value=None, level=level, n=0, direction=high, method="none", note=why
                )
            ]
        smallest = float(p_values[tested].min())
        measurements = [
            Measurement(
                name=self.p_value_name,
                value=smallest,
                low=smallest,
                high=smallest,
                level=level,
                n=count,
                direction=high,
                method=self.method,
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
