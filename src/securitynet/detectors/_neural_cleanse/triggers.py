"""What a search for triggers returns: norms, masks and patterns by label, from which both verdicts are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.methods.base import Gallery, Output
from securitynet.metrics import detection
from securitynet.records import Measurement

MOST_PICTURES = 64
"""Labels whose masks and patterns are kept, those with the smallest norms."""

MOST_ROWS = 12
"""Labels that the gallery shows."""


@dataclass(frozen=True, eq=False)
class Triggers(Output):
    """The smallest triggers that were found.

    Attributes:
        labels: Classes that were searched in full, N int64, ascending.
        norms: Sums of their masks, N float64; infinite where no trigger worked. The median over several searches.
        repeats: The norms of each search, R×N.
        success: Share of images that the best trigger of each search sends to the label, R×N; 0 where none worked.
        epochs: That each search took, R×N int64.
        sampled: Whether a label is of the random sample behind median and spread, N; all where all were searched.
        population: Number of classes, of which ``labels`` are some or all.
        verified: Labels whose norm was computed in fp32, N.
        pictured: Positions in ``labels`` of those with pictures, P int64, ascending by norm.
        masks: P×H×W uint8, 255 for a mask of 1.
        patterns: P×C×H×W uint8.
        class_means: Mean images of the pictured classes, P×C×H×W uint8; black where no image of the class is known.
        names: Of ``labels``, N.
        reference: The norms of clean models, M×N; M may be 0.
        planted_mask: Where the trigger was planted, H×W uint8, for models of known make; empty otherwise.
        backdoored_target: Label that it leads to; -1 for none or several.
    """

    labels: NDArray[np.int64]
    norms: NDArray[np.float64]
    repeats: NDArray[np.float64]
    success: NDArray[np.float64]
    epochs: NDArray[np.int64]
    sampled: NDArray[np.bool_]
    population: int
    verified: NDArray[np.bool_]
    pictured: NDArray[np.int64]
    masks: NDArray[np.uint8]
    patterns: NDArray[np.uint8]
    class_means: NDArray[np.uint8]
    names: tuple[str, ...]
    reference: NDArray[np.float64]
    planted_mask: NDArray[np.uint8]
    backdoored_target: int = -1

    headline: ClassVar[tuple[str, ...]] = ("p-value", "anomaly-index")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return {
            **plain,
            "population": np.asarray(self.population),
            "names": np.asarray(self.names, dtype=np.str_),
            "backdoored_target": np.asarray(self.backdoored_target),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Triggers:
        """See `Output.from_arrays`."""
        values: dict[str, Any] = dict(arrays)
        for name in ("population", "backdoored_target"):
            values[name] = int(values[name])
        values["names"] = tuple(str(name) for name in values["names"])
        return cls(**values)

    @property
    def flagged(self) -> list[int]:
        """Positions in ``labels`` that Neural Cleanse's rule flags, ascending by norm."""
        return detection.flagged(self.norms, self.sampled)

    @property
    def suspects(self) -> list[int]:
        """Positions in ``labels`` that the calibrated test calls outliers at 5%, ascending by norm."""
        return detection.suspects(self.norms, self.sampled, self._population)

    @property
    def _population(self) -> int | None:
        return None if len(self.labels) == self.population else self.population

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Both verdicts, and for a planted trigger how well it was located (`securitynet.metrics.detection`)."""
        found = detection.trigger_norms(
            self.norms,
            sampled=self.sampled,
            population=self._population,
            pixels=int(np.prod(self.masks.shape[1:])),
            repeats=list(self.repeats),
            reference=list(self.reference),
            level=level,
            seed=seed,
        )
        at = np.flatnonzero(self.labels[self.pictured] == self.backdoored_target)
        if self.planted_mask.size and len(at) and np.isfinite(self.norms[self.pictured[at[0]]]):
            found.append(detection.overlap(self.masks[at[0]] / 255.0, self.planted_mask / 255.0, level=level))
        return found

    def galleries(self) -> list[Gallery]:
        """Mask, pattern, both together, and the class's mean image: the smallest first (SecurityNet, Figure 18)."""
        count = min(MOST_ROWS, len(self.pictured))
        if not count:
            return []
        channels = self.patterns.shape[1]
        rows, images = [], []
        for row in range(count):
            position = int(self.pictured[row])
            mask = np.repeat(self.masks[row][None], channels, axis=0)
            pattern = self.patterns[row]
            applied = (mask.astype(np.float64) * pattern / 255).round().astype(np.uint8)
            images.append(np.stack([mask, pattern, applied, self.class_means[row]]))
            rows.append(self._describe(position))
        left = len(self.labels) - count
        more = f" The {count} smallest of {len(self.labels)} are shown." if left else ""
        return [
            Gallery(
                title="Smallest trigger found for each class",
                caption="A planted trigger is small, and looks nothing like its class. A mask that draws the outline "
                f"of its class's mean image is what a clean model gives.{more}",
                images=np.stack(images),
                rows=tuple(rows),
                columns=("Mask", "Pattern", "Mask × pattern", "Mean of the class"),
            )
        ]

    def _describe(self, position: int) -> str:
        norm = self.norms[position]
        if not np.isfinite(norm):
            return f"{self.names[position]}: none works"
        marks = [
            word
            for word, of in (("flagged by the rule", self.flagged), ("outlier at 5%", self.suspects))
            if position in of
        ]
        return f"{self.names[position]}: norm {norm:.1f}{''.join(f', {word}' for word in marks)}"
