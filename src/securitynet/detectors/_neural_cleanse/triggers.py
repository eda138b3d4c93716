"""What a search for triggers returns: norms, masks and patterns by label, from which the verdict is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.detectors._neural_cleanse.fresh_images import compute_success
from securitynet.detectors._neural_cleanse.wording import describe_search_verdict
from securitynet.methods.output import Gallery, Output
from securitynet.metrics import detection, rates, trigger_norms
from securitynet.metrics.backdoor_verdict import decide_verdict
from securitynet.metrics.trigger_norms import SearchedNorms
from securitynet.records import Direction, Measurement

MOST_PICTURES = 64
"""Labels whose masks and patterns are stored, those with the smallest norms."""

MOST_ROWS = 12
"""Labels that the gallery shows."""


@dataclass(frozen=True, eq=False)
class Triggers(Output):
    """The smallest working trigger of each label.

    Attributes:
        labels: Classes that were searched in full, N int64, ascending.
        norms: Sums of their masks, N float64: the smallest from any starting point; infinite where no trigger worked.
        repeats: The norms from each starting point, R×N.
        success: Share of the search's images that the best trigger of each search sends to the label, R×N; 0 where
            none worked.
        epochs: Epochs that each search took, R×N int64.
        sampled: Whether a label belongs to the random sample behind median and spread, N; all where all were searched.
        population: Number of classes of the model, of which ``labels`` are some or all.
        verified: Labels whose norm was computed in fp32, N.
        pictured: Positions in ``labels`` of those with pictures, P int64, ascending by norm.
        masks: Masks of the pictured labels, P×H×W uint8, 255 for a mask of 1.
        patterns: Patterns of the pictured labels, P×C×H×W uint8.
        class_means: Mean images of the pictured classes, P×C×H×W uint8; black where no image of the class is known.
        names: Names of ``labels``, N.
        reference: The norms of clean models, from one starting point each, M×N; M may be 0.
        planted_mask: Where the true trigger lies, H×W uint8, for models whose record says so; empty otherwise.
        backdoored_target: Label to which the true trigger leads; -1 for none or several.
        fresh_hits: Images that the search did not use, of each true class, that the pictured triggers send to their
            labels, P×K int64; empty if there were none.
        fresh_totals: Those images by true class, K int64.
        transfer: Share of those images of other classes that the pictured triggers send to their labels in each clean
            model, M×P; empty likewise.
        settled: Whether each search went on until the label's norm was close to its minimum, R×N; empty in results of
            earlier versions.
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
    fresh_hits: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    fresh_totals: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    transfer: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    settled: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    headline: ClassVar[tuple[str, ...]] = ("verdict", "suspect-label", "p-value", "anomaly-index")

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        plain = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return {
            **plain,
            "population": np.asarray(self.population),
            "names": np.asarray(self.names, dtype=np.str_),
            "backdoored_target": np.asarray(self.backdoored_target),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Triggers:
        values: dict[str, Any] = dict(arrays)
        for name in ("population", "backdoored_target"):
            values[name] = int(values[name])
        values["names"] = tuple(str(name) for name in values["names"])
        return cls(**values)

    @property
    def flagged(self) -> list[int]:
        """Positions in ``labels`` that Neural Cleanse's rule flags, ascending by norm."""
        return detection.flag_labels(self.norms, self.sampled)

    @property
    def suspects(self) -> list[int]:
        """Positions in ``labels`` that the test for blocks of outliers names at 5%, ascending by norm."""
        return trigger_norms.find_outliers(self.norms, self.sampled, self._population)

    @property
    def _population(self) -> int | None:
        return None if len(self.labels) == self.population else self.population

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """The verdict and what it rests on; for a known trigger also how well it was located."""
        fresh = self._measure_fresh(level)
        searched = SearchedNorms(
            norms=self.norms,
            pixels=int(np.prod(self.masks.shape[1:])),
            repeats=list(self.repeats),
            sampled=None if self._population is None else self.sampled,
            population=self._population,
            reference=list(self.reference),
            success=fresh[0].value if fresh else None,
            settled=self._find_settled(),
        )
        measured = trigger_norms.measure_trigger_norms(searched, level=level, seed=seed)
        evidence = trigger_norms.collect_evidence(searched, measured)
        values = {measurement.name: measurement.value for measurement in measured}
        accused = trigger_norms.find_accused(searched)
        sentence = describe_search_verdict(
            decide_verdict(evidence),
            evidence,
            [self._name_label(position) for position in accused],
            share=values.get("smallest-trigger"),
            detectable=values.get("detectable-ratio"),
        )
        label = int(self.labels[accused[0]]) if accused else None
        measured = [*trigger_norms.measure_verdict(evidence, sentence, label, level=level), *measured, *fresh]
        at = np.flatnonzero(self.labels[self.pictured] == self.backdoored_target)
        if self.planted_mask.size and len(at) and np.isfinite(self.norms[self.pictured[at[0]]]):
            measured.append(
                detection.measure_overlap(self.masks[at[0]] / 255.0, self.planted_mask / 255.0, level=level)
            )
        return measured

    def _find_settled(self) -> NDArray[np.bool_] | None:
        """Whether the smallest norm of each label had settled, N; None if that is not known."""
        if not len(self.settled):
            return None
        settled: NDArray[np.bool_] = np.take_along_axis(self.settled, self.repeats.argmin(axis=0)[None], axis=0)[0]
        return settled

    def _measure_fresh(self, level: float) -> list[Measurement]:
        """Success of the smallest trigger on fresh images of other classes, on the worst class, and on clean models."""
        if not len(self.fresh_hits) or not np.isfinite(self.norms).any():
            return []
        goals = self.labels[self.pictured]
        hits, totals = (int(values[0]) for values in compute_success(self.fresh_hits, self.fresh_totals, goals))
        if not totals:
            return []
        measured = [rates.rate("fresh-success", hits, totals, direction=Direction.LOWER, level=level)]
        others = (np.arange(len(self.fresh_totals)) != goals[0]) & (self.fresh_totals > 0)
        shares = np.where(others, self.fresh_hits[0] / np.maximum(self.fresh_totals, 1), np.inf)
        worst = int(shares.argmin())
        measured.append(
            rates.rate(
                "fresh-success-worst-class",
                int(self.fresh_hits[0, worst]),
                int(self.fresh_totals[worst]),
                direction=Direction.LOWER,
                level=level,
            ).with_notes(f"Images of class {worst}; a trigger for one source class works on few of the others.")
        )
        if self.transfer.size:
            alone = self.transfer[:, 0]
            measured.append(
                Measurement(
                    name="trigger-transfer",
                    value=float(alone.mean()),
                    low=float(alone.min()),
                    high=float(alone.max()),
                    level=level,
                    n=len(alone),
                    direction=Direction.HIGHER,
                    method=f"range of {len(alone)} clean models",
                    note="Success of the same trigger on clean models; a natural feature of the class works there too.",
                )
            )
        return measured

    def _name_label(self, position: int) -> str:
        number, name = int(self.labels[position]), self.names[position]
        return f"label {number}" if name in (str(number), f"class {number}") else f"label {number} ({name})"

    @override
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
                title="Smallest trigger of each class",
                caption="The trigger of a backdoor is small, and looks nothing like its class. The masks of a clean "
                f"model draw the outlines of their classes' mean images.{more}",
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
            for word, marked in (("flagged by the rule", self.flagged), ("outlier at 5%", self.suspects))
            if position in marked
        ]
        return f"{self.names[position]}: norm {norm:.1f}{''.join(f', {word}' for word in marks)}"
