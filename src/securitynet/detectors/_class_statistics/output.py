"""What a detector returns that compares statistics of the classes: the statistics, a p-value and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.output import Output
from securitynet.metrics.backdoor_verdict import ALPHA
from securitynet.metrics.high_outliers import FEWEST, HighOutlier, find_high_outlier
from securitynet.randomness import derive_seed
from securitynet.records import Direction, Measurement

RESAMPLINGS = 200
"""Resamplings of the starting points behind the interval of the p-value."""

NOTHING, UNDECIDED, SUSPICIOUS = 0, 1, 2
"""Ranks of the verdicts, as in `securitynet.metrics.backdoor_verdict`; one statistic alone never proves a backdoor."""


@dataclass(frozen=True, eq=False)
class ClassStatistics(Output):
    """Statistics of K classes, each larger for a class that a backdoor leads to.

    Class attributes:
        blind_spot: What the statistics cannot show, said where nothing was found.

    Attributes:
        values: S statistics × R repeats × K classes, float64; a class's statistic is the largest of its repeats.
        titles: What the S statistics are, as in "largest margin".
        names: Names of the classes, K.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value", "suspect-label")
    blind_spot: ClassVar[str] = (
        "A backdoor with several targets (up to all-to-all), one that needs an image of one class, and one that raises "
        "its class no further than classes differ anyway can go unseen."
    )

    values: NDArray[np.float64]
    titles: tuple[str, ...]
    names: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "values": self.values,
            "titles": np.asarray(self.titles, dtype=np.str_),
            "names": np.asarray(self.names, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ClassStatistics:
        titles, names = (tuple(str(text) for text in arrays[key]) for key in ("titles", "names"))
        return cls(arrays["values"], titles, names)

    @property
    def statistics(self) -> NDArray[np.float64]:
        """The S×K statistics."""
        largest: NDArray[np.float64] = self.values.max(axis=1)
        return largest

    def find_outlier(self, statistics: NDArray[np.float64]) -> tuple[int, HighOutlier] | None:
        """The statistic that decides, by its row, and its outlier; see `find_in_any`, which is the default."""
        return find_in_any(statistics)

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        outlier = self.find_outlier(self.statistics)
        classes = self.values.shape[2]
        if outlier is None:
            note = f"Undecided: {classes} classes, or equal statistics, are too few for a test ({FEWEST} are needed)."
            none = Measurement(
                name="p-value", value=None, n=classes, direction=Direction.HIGHER, level=level, method="none", note=note
            )
            return [make_verdict(UNDECIDED, note, level), none]
        row, largest = outlier
        low, high = self._resample(largest.p_value, level, seed)
        p_value = Measurement(
            name="p-value",
            value=largest.p_value,
            low=low,
            high=high,
            level=level,
            n=classes,
            direction=Direction.HIGHER,
            method="Grubbs' test" + ("; interval by resampling starting points" if self.values.shape[1] > 1 else ""),
            note=f"Of the class that stands out most by its {self.titles[row]}, among all classes.",
        )
        rank, sentence = self.decide(row, largest, low, high)
        label = make_exact(
            "suspect-label", largest.position, classes, level, f"Class that stands out most by its {self.titles[row]}."
        )
        return [make_verdict(rank, sentence, level), p_value, label]

    def decide(self, row: int, outlier: HighOutlier, low: float, high: float) -> tuple[int, str]:
        """The rank of the verdict, and the verdict in words.

        Args:
            row: The statistic with the smallest p-value.
            outlier: Its largest value, with the p-value among all statistics.
            low: Lower end of the interval of the p-value.
            high: Upper end.
        """
        label, title = self.names[outlier.position], self.titles[row]
        shown = show_p_value(outlier.p_value)
        if outlier.p_value <= ALPHA:
            return SUSPICIOUS, f"Suspicious: class {label} has a far larger {title} than the others ({shown})."
        if low <= ALPHA:
            return UNDECIDED, (
                f"Undecided: whether class {label} has an unusually large {title} depends on the starting points "
                f"({shown}; {low:.3f} to {high:.3f})."
            )
        return NOTHING, f"Nothing found: no class stands out by its {title} ({shown}). {self.blind_spot}"

    def _resample(self, p_value: float, level: float, seed: int) -> tuple[float, float]:
        """Percentile interval of the p-value over resampled repeats; it always contains the p-value."""
        repeats = self.values.shape[1]
        if repeats == 1:
            return p_value, p_value
        random = np.random.default_rng(derive_seed(seed, "class statistics"))
        drawn = []
        for _ in range(RESAMPLINGS):
            outlier = self.find_outlier(self.values[:, random.integers(0, repeats, repeats)].max(axis=1))
            drawn.append(1.0 if outlier is None else outlier[1].p_value)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return min(float(low), p_value), max(float(high), p_value)


def find_in_any(statistics: NDArray[np.float64]) -> tuple[int, HighOutlier] | None:
    """The statistic (its row) with the smallest p-value, and its outlier; the p-value is multiplied by their number.

    Args:
        statistics: S×K.

    Returns:
        None where no statistic can be tested.
    """
    tested = [(row, find_high_outlier(values)) for row, values in enumerate(statistics)]
    known = [(row, outlier) for row, outlier in tested if outlier is not None]
    if not known:
        return None
    row, best = min(known, key=lambda pair: pair[1].p_value)
    return row, HighOutlier(best.position, best.deviate, min(1.0, len(known) * best.p_value))


def find_in_all(statistics: NDArray[np.float64]) -> tuple[int, HighOutlier] | None:
    """The statistic (its row) with the largest p-value, and its outlier; 1 if the statistics single out two classes.

    A class is accused only if each statistic accuses it, so the level is at most that of one of them.

    Args:
        statistics: S×K.

    Returns:
        None where a statistic cannot be tested.
    """
    tested = [find_high_outlier(values) for values in statistics]
    known = [(row, outlier) for row, outlier in enumerate(tested) if outlier is not None]
    if len(known) < len(tested):
        return None
    row, weakest = max(known, key=lambda pair: pair[1].p_value)
    agreed = len({outlier.position for _, outlier in known}) == 1
    return row, HighOutlier(weakest.position, weakest.deviate, weakest.p_value if agreed else 1.0)


def make_verdict(rank: int, sentence: str, level: float) -> Measurement:
    """The verdict as a number that a policy can bound, with the verdict in words as its note.

    Args:
        rank: 0 nothing found, 1 undecided, 2 suspicious.
        sentence: The verdict in words.
        level: Confidence level of the test.
    """
    return make_exact("verdict", rank, 1, level, sentence)


def show_p_value(p_value: float) -> str:
    """A p-value in words."""
    return f"p\u00a0=\u00a0{p_value:.3f}" if p_value >= 0.001 else "p\u00a0<\u00a00.001"


def make_exact(name: str, value: float, n: int, level: float, note: str) -> Measurement:
    """A measurement that nothing random entered, of which smaller is better.

    Args:
        name: Name of the measurement.
        value: Its value, which is also both ends of its interval.
        n: Number of classes behind it.
        level: Confidence level to state.
        note: Note of the measurement.
    """
    return Measurement(
        name=name,
        value=float(value),
        low=float(value),
        high=float(value),
        level=level,
        n=n,
        direction=Direction.LOWER,
        method="computed exactly",
        note=note,
    )
