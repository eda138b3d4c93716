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

PATCH_SUCCESS = 0.75
"""Least success of a patch on images of its source class, of which more are tried, with which it can accuse."""

LEAST_REACHED = 0.5
"""Least share of the pairs with a working trigger for a verdict: else norms are compared that hardly exist."""

MOST_NAMED = 4
"""Most pairs or classes that the verdict names."""

BLIND_SPOT = (
    "A trigger that differs from image to image, such as a distortion, or one that covers much of the image, can go "
    "unseen, and so can a backdoor that swaps two classes, and one for images of one class whose trigger is no small "
    "patch, or whose image has few pixels."
)


@dataclass(frozen=True, eq=False)
class PairNorms(Output):
    """The smallest triggers between classes.

    Attributes:
        norms: Sums of their masks from each of R starting points, R × S sources × K targets float64; NaN for pairs
            that were not searched, infinite where no trigger worked.
        success: Share of images of the source that the search did not use and that the trigger turns into the target,
            S×K; NaN where there are none.
        margins: Mean margins of the target that patches give to images of the source, in logits, by place, S×K×B; NaN
            for pairs that were not searched.
        patched: Shares of these images that the patches send to the target, S×K×B.
        boxes: Top, left and side of the B places, in pixels, B×3 int64; none in results of versions 1 and 2.
        pictures: Of some pairs: an image of the source, the mask, mask times pattern, and the image with the trigger,
            Q×4×C×H×W uint8.
        pictured: Those pairs, Q×2 int64: the one whose patch leads most, if there are patches, and those whose triggers
            have the smallest shares, ascending.
        names: Names of the classes.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value", "suspect-label")

    norms: NDArray[np.float64]
    success: NDArray[np.float64]
    margins: NDArray[np.float64]
    patched: NDArray[np.float64]
    boxes: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    pictured: NDArray[np.int64]
    names: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "norms": self.norms,
            "success": self.success,
            "margins": self.margins,
            "patched": self.patched,
            "boxes": self.boxes,
            "pictures": self.pictures,
            "pictured": self.pictured,
            "names": np.asarray(self.names, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PairNorms:
        names = tuple(str(name) for name in arrays["names"])
        norms = arrays["norms"]
        none = np.full((*norms.shape[1:], 0), np.nan)  # versions 1 and 2 tried no patches
        margins, patched = (arrays.get(key, none) for key in ("margins", "patched"))
        boxes = arrays.get("boxes", np.zeros((0, 3), np.int64))
        return cls(norms, arrays["success"], margins, patched, boxes, arrays["pictures"], arrays["pictured"], names)

    def _run_tests(self, norms: NDArray[np.float64]) -> PairTest | None:
        """Run the tests on norms S×K and on the patches."""
        return find_easy_pairs(norms, *((self.margins, self.boxes) if len(self.boxes) else ()))

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        searched = int((~np.isnan(self.norms[0])).sum())
        test, reached = (
            self._run_tests(self.norms.min(axis=0)),
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
        if test.lead is not None and not test.targets and not test.assignment:
            success = self.patched[source, goal, test.lead.place]
        if np.isfinite(success):
            note = f"Of the trigger from class {self.names[source]} to class {self.names[goal]}."
            measured.append(make_exact("fresh-success", float(success), searched, level, note))
        return measured

    def _find_suspect(self, test: PairTest) -> tuple[int, int]:
        """The pair that the verdict is about: of the named ones if there are any, else the one that leads most."""
        if test.targets:
            goal = test.targets[0]
            return int(np.nanargmin(self.norms.min(axis=0)[:, goal])), goal
        if test.assignment:
            return test.assignment[0]
        if test.lead is not None:
            return test.lead.pair
        row, column = np.unravel_index(np.nanargmin(test.shares), test.shares.shape)
        return int(row), int(column)

    def _measure_success(self, test: PairTest) -> tuple[float, float]:
        """The share of fresh images on which what is accused works, NaN without any, and the least that accuses."""
        if test.targets:
            own = self.success[:, list(test.targets)]
            return (float(np.nanmean(own)) if np.isfinite(own).any() else np.nan), FRESH_SUCCESS
        if test.assignment:
            own = np.array([self.success[a, b] for a, b in test.assignment])
            return (float(np.nanmean(own)) if np.isfinite(own).any() else np.nan), FRESH_SUCCESS
        assert test.lead is not None  # nothing else is named
        return float(self.patched[(*test.lead.pair, test.lead.place)]), PATCH_SUCCESS

    def _decide(self, test: PairTest, low: float, high: float, source: int, goal: int) -> tuple[int, str]:
        """The rank of the verdict, and the verdict in words."""
        p_value = show_p_value(test.p_value)
        pair = f"from class {self.names[source]} to class {self.names[goal]}"
        if test.p_value <= ALPHA and test.named:
            success, least = self._measure_success(test)
            if success < least:  # not if it is NaN
                return UNDECIDED, (
                    f"Undecided: a trigger {pair} stands out ({p_value}), but it works on {success:.0%} of the fresh "
                    "images only."
                )
            return SUSPICIOUS, f"Suspicious: {self._accuse(test)} ({p_value})."
        if low <= ALPHA:
            return UNDECIDED, (
                f"Undecided: a trigger {pair} stands out, but not by far, or not from every starting point "
                f"({p_value}; {low:.3f} to {high:.3f})."
            )
        return (
            NOTHING,
            f"Nothing found: no pair of classes has an outstanding trigger ({p_value}). {BLIND_SPOT}",
        )

    def _accuse(self, test: PairTest) -> str:
        """Name the accused pairs or classes, as a clause."""
        if test.targets:
            shown = ", ".join(self.names[label] for label in test.targets[:MOST_NAMED])
            return f"images of most classes become class {shown} by a far smaller trigger than other classes need"
        if test.assignment:
            shown = self._show_pairs(test.assignment)
            return f"a trigger that is far smaller than usual leads from each class to another one, such as {shown}"
        assert test.lead is not None  # nothing else is named
        source, goal = test.lead.pair
        top, left, side = self.boxes[test.lead.place].tolist()
        return (
            f"a patch on rows {top} to {top + side - 1} and columns {left} to {left + side - 1} turns images of class "
            f"{self.names[source]} into class {self.names[goal]}, as it does for no other pair and at no other place"
        )

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
            test = self._run_tests(self.norms[random.integers(0, repeats, repeats)].min(axis=0))
            drawn.append(1.0 if test is None else test.p_value)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return min(float(low), p_value), max(float(high), p_value)

    @override
    def galleries(self) -> list[Gallery]:
        if not len(self.pictured):
            return []
        test = self._run_tests(self.norms.min(axis=0))
        rows = []
        for number, (source, goal) in enumerate(self.pictured):
            pair = f"{self.names[source]} to {self.names[goal]}"
            if number == 0 and len(self.boxes) and test is not None and test.lead is not None:
                rows.append(f"{pair}: patch that leads by {test.lead.leads[source, goal]:.1f}")
                continue
            norm = float(np.nanmin(self.norms[:, source, goal]))
            share = "" if test is None else f", {test.shares[source, goal]:.0%} of what the classes suggest"
            rows.append(f"{pair}: norm {norm:.1f}{share}")
        return [
            Gallery(
                title="Triggers between classes",
                caption="The patch that leads the others most, and the masks that are smallest compared with what "
                "source and target suggest. The trigger of a backdoor looks like neither of the classes.",
                images=self.pictures,
                rows=tuple(rows),
                columns=("Image of the source", "Mask", "Mask × pattern", "With the trigger"),
            )
        ]
