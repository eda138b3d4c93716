"""`Output`: what attacks and detectors return. No torch: reports read outputs, and need no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import UnknownName
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.records import Measurement


@dataclass(frozen=True, eq=False)
class Gallery:
    """A grid of images for the report.

    Attributes:
        title: Heading.
        caption: What the images show, in one or two sentences.
        images: R×Q×C×H×W uint8, where C is 1 or 3.
        rows: Labels of the R rows.
        columns: Labels of the Q columns.

    Raises:
        ValueError: If the images are of another kind or number.
    """

    title: str
    caption: str
    images: NDArray[np.uint8]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 5 or shape[2] not in (1, 3) or 0 in shape[3:]:
            raise ValueError(f"a gallery of {self.images.dtype} images of shape {shape} cannot be shown")
        if shape[:2] != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"a gallery of {len(self.rows)}×{len(self.columns)} labels holds {shape[0]}×{shape[1]} images"
            )


class Output(ABC):
    """Raw output of a family of methods: arrays that can be stored, and from which measurements are computed.

    Class attributes:
        headline: Names of the most important measurements, for summaries; names that do not occur are skipped.
    """

    headline: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole output as named arrays."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Output:
        """Build an output from the arrays that `arrays` returned."""

    @abstractmethod
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute the measurements of this output.

        Args:
            level: Confidence level of the intervals, in (0, 1).
            fprs: False-positive rates at which true-positive rates are reported, each in (0, 1).
            seed: Seed of the bootstrap.
        """

    def without(self, records: NDArray[np.int64]) -> Output:
        """This output without some of the records that it is judged on; all of it where it is not judged on records.

        Args:
            records: Sorted; those that are not among the judged ones have no effect.
        """
        return self

    def galleries(self) -> list[Gallery]:
        """Image grids for the report; most families have none."""
        return []

    def measure(
        self, *, level: float = 0.95, fprs: Sequence[float] = DEFAULT_FPRS, seed: int = 0
    ) -> dict[str, Measurement]:
        """The measurements of this output by name.

        Args:
            level: Confidence level of the intervals.
            fprs: False-positive rates at which attacks are measured.
            seed: Seed of whatever is drawn at random.
        """
        return {measurement.name: measurement for measurement in self.measurements(level=level, fprs=fprs, seed=seed)}

    def __getitem__(self, name: str) -> float | None:
        """The value of a measurement by its name, such as ``auc``; None if so few records can't resolve it.

        Raises:
            UnknownName: If there is no such measurement.
        """
        measured = self.measure()
        if name not in measured:
            raise UnknownName("measurement", name, measured)
        return measured[name].value
