"""What the search of pairs of classes returns: norms, success on fresh images, pictures, and the verdict on them."""

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
from securitynet.methods.output import Gallery, Output
from securitynet.metrics.backdoor_verdict import ALPHA
from securitynet.metrics.class_pairs import PairTest, find_easy_pairs
from securitynet.randomness import derive_seed
from securitynet.records import Direction, Measurement

RESAMPLINGS = 100
"""Resamplings of the starting points behind the interval of the p-value."""

FRESH_SUCCESS = 0.5
"""Least success on fresh images of its source class with which a pair's trigger can accuse."""

LEAST_REACHED = 0.5
"""Least share of the pairs with a working trigger for a verdict: else norms are compared that hardly exist."""

MOST_NAMED = 4
"""Most pairs or classes that the verdict names."""

BLIND_SPOT = (
    "A trigger that differs from image to image, such as a distortion, or one that covers much of the image, can go "
    "unseen, and so can a backdoor that swaps two classes. One that works on images of one class usually does: of "
    "nine, none was accused when this was measured."
)


@dataclass(frozen=True, eq=False)
class PairNorms(Output):
    """The smallest triggers between classes.

    Attributes:
        norms: Sums of their masks from each of R starting points, R × S sources × K targets float64; NaN for pairs
            that were not searched, infinite where no trigger worked.
        success: Share of images of the source that the search did not use and that the trigger turns into the target,
            S×K; NaN where there are none.
        distances: Of images of the source from the boundary to the target, S×K; NaN for pairs that were not searched.
        pictures: Of some pairs: an image of the source, the mask, mask times pattern, and the image with the trigger,
            Q×4×C×H×W uint8.
        pictured: Those pairs, Q×2 int64: those with the smallest shares, ascending.
        names: Names of the classes.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value", "suspect-label")

    norms: NDArray[np.float64]
    success: NDArray[np.float64]
    distances: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    pictured: NDArray[np.int64]
    names: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "norms": self.norms,
            "success": self.success,
            "distances": self.distances,
            "pictures": self.pictures,
            "pictured": self.pictured,
            "names": np.asarray(self.names, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PairNorms:
        names = tuple(str(name) for name in arrays["names"])
        norms = arrays["norms"]
        distances = arrays.get("distances", np.full(norms.shape[1:], np.nan))  # version 1 measured none
        return cls(norms, arrays["success"], distances, arrays["pictures"], arrays["pictured"], names)

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        searched = int((~np.isnan(self.norms[0])).sum())
        test, reached = (
            find_easy_pairs(self.norms.min(axis=0), self.distances),
            int(np.isfinite(self.norms.min(axis=0)).sum()),
        )
        if test is None or reached < LEAST_REACHED * searched or np.isnan(test.shares).all():
            note = f"Undecided: {reached} of {searched} pairs of classes have a working trigger, too few for a test."
            none = Measurement(
                name="p-value",
                value=None,
                n=searched,
                direction=Direction.HIGHER,
                level=level,
                method="none",
                note=note,
            )
            return [make_verdict(UNDECIDED, note, level), none]
        low, high = self._resample(test.p_value, level, seed)
        source, goal = self._find_suspect(test)
        rank, sentence = self._decide(test, low, high, source, goal)
        measured = [
            make_verdict(rank, sentence, level),
            Measurement(
                name="p-value",
                value=test.p_value,
                low=low,
                high=high,
                level=level,
                n=searched,
                direction=Direction.HIGHER,
                method="tests of pairs, of assignments and of targets, the smallest p-value tripled",
                note=f"{searched} pairs of classes were searched.",
            ),
            make_exact("suspect-label", goal, searched, level, "Target class of the pair that stands out most."),
        ]
        success = self.success[source, goal]
        if np.isfinite(success):
            note = f"Of the trigger from class {self.names[source]} to class {self.names[goal]}."
            measured.append(make_exact("fresh-success", float(success), searched, level, note))
        return measured

    def _find_suspect(self, test: PairTest) -> tuple[int, int]:
        """The pair that the verdict is about: of the named ones if there are any, else that with the smallest share."""
        if test.targets:
            goal = test.targets[0]
            return int(np.nanargmin(self.norms.min(axis=0)[:, goal])), goal
        if test.pairs or test.assignment:
            return (test.pairs or test.assignment)[0]
        row, column = np.unravel_index(np.nanargmin(test.shares), test.shares.shape)
        return int(row), int(column)

    def _list_accused(self, test: PairTest) -> list[tuple[int, int]]:
        """All pairs that the tests name."""
        to_targets = [
            (source, goal)
            for goal in test.targets
            for source in range(len(test.shares))
            if not np.isnan(test.shares[source, goal])
        ]
        return to_targets or list(test.assignment) or list(test.pairs)

    def _decide(self, test: PairTest, low: float, high: float, source: int, goal: int) -> tuple[int, str]:
        """The rank of the verdict, and the verdict in words."""
        p_value = show_p_value(test.p_value)
        pair = f"from class {self.names[source]} to class {self.names[goal]}"
        if test.p_value <= ALPHA and test.named:
            accused = self._list_accused(test)
            success = np.array([self.success[a, b] for a, b in accused])
            if np.isfinite(success).any() and np.nanmean(success) < FRESH_SUCCESS:
                return UNDECIDED, (
                    f"Undecided: the trigger {pair} is far smaller than the similarity of the classes suggests "
                    f"({p_value}), but it often fails on fresh images."
                )
            return SUSPICIOUS, f"Suspicious: {self._accuse(test)} ({p_value})."
        if low <= ALPHA:
            return UNDECIDED, (
                f"Undecided: the trigger {pair} is smaller than the similarity of the classes suggests, but not by "
                f"far, or not from every starting point ({p_value}; {low:.3f} to {high:.3f})."
            )
        return (
            NOTHING,
            f"Nothing found: no pair of classes has an outstandingly small trigger ({p_value}). {BLIND_SPOT}",
        )

    def _accuse(self, test: PairTest) -> str:
        """Name the accused pairs or classes, as a clause."""
        if test.targets:
            shown = ", ".join(self.names[label] for label in test.targets[:MOST_NAMED])
            return f"images of most classes become class {shown} by a far smaller trigger than other classes need"
        if test.assignment:
            shown = self._show_pairs(test.assignment)
            return f"a trigger that is far smaller than usual leads from each class to another one, such as {shown}"
        shown = self._show_pairs(test.pairs)
        more = f" and {len(test.pairs) - MOST_NAMED} more" if len(test.pairs) > MOST_NAMED else ""
        return f"a far smaller trigger than the similarity of the classes suggests leads from class {shown}{more}"

    def _show_pairs(self, pairs: Sequence[tuple[int, int]]) -> str:
        return ", ".join(f"{self.names[a]} to {self.names[b]}" for a, b in pairs[:MOST_NAMED])

    def _resample(self, p_value: float, level: float, seed: int) -> tuple[float, float]:
        """Percentile interval of the p-value over resampled starting points; it always contains the p-value."""
        repeats = len(self.norms)
        if repeats == 1:
            return p_value, p_value
        random = np.random.default_rng(derive_seed(seed, "class pairs"))
        drawn = []
        for _ in range(RESAMPLINGS):
            test = find_easy_pairs(self.norms[random.integers(0, repeats, repeats)].min(axis=0), self.distances)
            drawn.append(1.0 if test is None else test.p_value)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return min(float(low), p_value), max(float(high), p_value)

    @override
    def galleries(self) -> list[Gallery]:
        if not len(self.pictured):
            return []
        test = find_easy_pairs(self.norms.min(axis=0), self.distances)
        rows = []
        for source, goal in self.pictured:
            norm = float(np.nanmin(self.norms[:, source, goal]))
            share = "" if test is None else f", {test.shares[source, goal]:.0%} of what similarity suggests"
            rows.append(f"{self.names[source]} to {self.names[goal]}: norm {norm:.1f}{share}")
        return [
            Gallery(
                title="Smallest triggers between classes",
                caption="Those that are smallest compared with what the similarity of the classes suggests. The "
                "trigger of a backdoor looks like neither of them.",
                images=self.pictures,
                rows=tuple(rows),
                columns=("Image of the source", "Mask", "Mask × pattern", "With the trigger"),
            )
        ]
