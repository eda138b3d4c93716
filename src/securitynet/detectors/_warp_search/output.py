"""What `warp-search` returns: the smallest distortion of each class, a p-value and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.detectors._class_statistics.output import (
    NOTHING,
    SUSPICIOUS,
    UNDECIDED,
    make_exact,
    make_verdict,
    show_p_value,
)
from securitynet.methods.base import Gallery, Output
from securitynet.metrics.backdoor_verdict import ALPHA, FAR_RATIO
from securitynet.metrics.outlier_blocks import OutlierBlock, find_outlier_block
from securitynet.randomness import derived_seed
from securitynet.records import Direction, Measurement

RESAMPLINGS = 100
"""Resamplings of the starting points behind the interval of the p-value."""

LEAST_SUCCESS = 0.5
"""Least success of a distortion on fresh images with which its class is accused."""

BLIND_SPOT = (
    "A trigger that is no distortion, or a distortion that differs from image to image, can go unseen, and so can a "
    "backdoor that leads each class to another one."
)


@dataclass(frozen=True, eq=False)
class DistortionSizes(Output):
    """The smallest distortions that send images of all other classes to each class.

    Attributes:
        sizes: Their sizes from each of R starting points, as shares of the side, R×K float64; infinite where none
            worked.
        success: Share of images of other classes that the search did not use and that the smallest distortion sends to
            the class, K; NaN where there are none.
        pictures: Images beside their distorted versions, for the class with the smallest distortion, P×2×C×H×W uint8.
        names: Names of the classes, K.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value", "suspect-label")

    sizes: NDArray[np.float64]
    success: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    names: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "sizes": self.sizes,
            "success": self.success,
            "pictures": self.pictures,
            "names": np.asarray(self.names, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> DistortionSizes:
        names = tuple(str(name) for name in arrays["names"])
        return cls(arrays["sizes"], arrays["success"], arrays["pictures"], names)

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        smallest, classes = self.sizes.min(axis=0), self.sizes.shape[1]
        test, reached = find_outlier_block(smallest), int(np.isfinite(smallest).sum())
        label = int(smallest.argmin())
        if test is None:
            note = f"Undecided: a distortion leads to {reached} of {classes} classes, too few for a test."
            none = Measurement(
                name="p-value",
                value=None,
                n=classes,
                direction=Direction.HIGHER,
                level=level,
                method="none",
                note=note,
            )
            measured = [make_verdict(UNDECIDED, note, level), none]
        else:
            low, high = self._resample(test.p_value, level, seed)
            rank, sentence = self._decide(test, low, high)
            measured = [
                make_verdict(rank, sentence, level),
                Measurement(
                    name="p-value",
                    value=test.p_value,
                    low=low,
                    high=high,
                    level=level,
                    n=classes,
                    direction=Direction.HIGHER,
                    method="test for blocks of outliers; interval by resampling starting points",
                    note=f"Chance that a clean model has sizes as far below the others; {reached} classes reached.",
                ),
            ]
        if not reached:
            return measured
        name = self.names[label]
        measured.append(make_exact("suspect-label", label, classes, level, "Class with the smallest distortion."))
        measured.append(
            make_exact(
                "smallest-to-median", self._compute_ratio(label), classes, level, "Among all classes but this one."
            )
        )
        if np.isfinite(self.success[label]):
            note = f"Of the smallest distortion, to class {name}, on fresh images of other classes."
            measured.append(make_exact("fresh-success", float(self.success[label]), classes, level, note))
        return measured

    def _decide(self, test: OutlierBlock, low: float, high: float) -> tuple[int, str]:
        """The rank of the verdict, and the verdict in words."""
        shown, label = show_p_value(test.p_value), int(self.sizes.min(axis=0).argmin())
        name, ratio = self.names[label], self._compute_ratio(label)
        if test.positions:
            success = self.success[list(test.positions)]
            named = ", ".join(self.names[place] for place in test.positions)
            if np.isfinite(success).any() and np.nanmax(success) < LEAST_SUCCESS:
                return UNDECIDED, (
                    f"Undecided: a far smaller distortion than for other classes leads to class {named} ({shown}), but "
                    "it often fails on fresh images."
                )
            return SUSPICIOUS, (
                f"Suspicious: a far smaller distortion than for other classes leads to class {named} ({shown}; "
                f"{ratio:.2g} of the others' median)."
            )
        if low <= ALPHA or ratio <= FAR_RATIO:
            return UNDECIDED, (
                f"Undecided: the smallest distortion leads to class {name} ({ratio:.2g} of the others' median; "
                f"{shown}; {low:.3f} to {high:.3f})."
            )
        return NOTHING, f"Nothing found: no class has an outstandingly small distortion ({shown}). {BLIND_SPOT}"

    def _compute_ratio(self, label: int) -> float:
        """The smallest size of a class as a share of the median of the others; 0 if most of those were not reached."""
        smallest = self.sizes.min(axis=0)
        return float(smallest[label] / np.median(np.delete(smallest, label)))

    def _resample(self, p_value: float, level: float, seed: int) -> tuple[float, float]:
        """Percentile interval of the p-value over resampled starting points; it always contains the p-value."""
        repeats = len(self.sizes)
        if repeats == 1:
            return p_value, p_value
        random = np.random.default_rng(derived_seed(seed, "warp search"))
        drawn = []
        for _ in range(RESAMPLINGS):
            test = find_outlier_block(self.sizes[random.integers(0, repeats, repeats)].min(axis=0))
            drawn.append(1.0 if test is None else test.p_value)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return min(float(low), p_value), max(float(high), p_value)

    @override
    def galleries(self) -> list[Gallery]:
        if not len(self.pictures):
            return []
        label = self.names[int(self.sizes.min(axis=0).argmin())]
        return [
            Gallery(
                title=f"The smallest distortion, which leads to class {label}",
                caption="Found by the search; that of a backdoor may differ from it.",
                images=self.pictures,
                rows=tuple(f"Image {number + 1}" for number in range(len(self.pictures))),
                columns=("Image", "Distorted"),
            )
        ]
