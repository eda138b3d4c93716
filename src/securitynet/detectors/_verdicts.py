"""What a filter of inputs returns: its verdicts on clean images, on stamped ones, and on images of unknown origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.methods.base import Gallery, Output
from securitynet.metrics import filtering
from securitynet.metrics.filtering import Judged
from securitynet.records import Measurement

NO_REGION = (-1, -1, -1, -1)


@dataclass(frozen=True, eq=False)
class FilterVerdicts(Output):
    """Verdicts of an input filter.

    Attributes:
        indices: Clean records that were judged, N int64.
        clean: Verdicts on them.
        threshold: Above this score an image is stopped.
        nominal: The false rejection rate that the threshold was chosen for; None where there is none.
        calibration: Scores of the other clean images that the threshold comes from; empty where there are none.
        stamped: Verdicts on those of the records that a trigger can harm, M, with the trigger; None if none is known.
        works: Whether the trigger changes the prediction of each of them, M; None likewise.
        suspects: Verdicts on images of unknown origin; None if none were given.
        exact: Whether scores are complete. Where questions stopped as soon as the verdict was sure, they are bounds,
            and no ROC can be drawn from them.
        overlaps: For stamped images that are stopped and on which the trigger works, the overlap of the region that
            was found with the trigger (intersection over union); None where filters find no region.
        pictures: R×Q×C×H×W uint8.
        rows: What each row of pictures shows, R.
        columns: What each column shows, Q.
        notes: What a reader must know; they go to the note of each measurement.
        facts: Further arrays, to be kept.
    """

    headline: ClassVar[tuple[str, ...]] = ("false-rejection-rate", "detection-rate", "auc", "suspects-flagged")

    indices: NDArray[np.int64]
    clean: Judged
    threshold: float
    nominal: float | None
    calibration: NDArray[np.float64]
    stamped: Judged | None = None
    works: NDArray[np.bool_] | None = None
    suspects: Judged | None = None
    exact: bool = True
    overlaps: NDArray[np.float64] | None = None
    pictures: NDArray[np.uint8] | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
        groups = {"clean": self.clean, "stamped": self.stamped, "suspects": self.suspects}
        optional = {"works": self.works, "overlaps": self.overlaps, "pictures": self.pictures}
        texts = {"rows": self.rows, "columns": self.columns, "notes": self.notes}
        return {
            "indices": self.indices,
            "threshold": np.asarray(self.threshold),
            "nominal": np.asarray(np.nan if self.nominal is None else self.nominal),
            "calibration": self.calibration,
            "exact": np.asarray(self.exact),
            **{f"{name}_scores": group.scores for name, group in groups.items() if group is not None},
            **{f"{name}_flagged": group.flagged for name, group in groups.items() if group is not None},
            **{name: values for name, values in optional.items() if values is not None},
            **{name: np.asarray(words, dtype=np.str_) for name, words in texts.items() if words},
            **{f"fact {name}": values for name, values in self.facts.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FilterVerdicts:
        """See `Output.from_arrays`."""

        def group(name: str) -> Judged | None:
            scores = arrays.get(f"{name}_scores")
            return None if scores is None else Judged(scores, arrays[f"{name}_flagged"])

        def words(name: str) -> tuple[str, ...]:
            return tuple(str(word) for word in arrays.get(name, ()))

        nominal = float(arrays["nominal"])
        return cls(
            arrays["indices"],
            Judged(arrays["clean_scores"], arrays["clean_flagged"]),
            float(arrays["threshold"]),
            None if np.isnan(nominal) else nominal,
            arrays["calibration"],
            group("stamped"),
            arrays.get("works"),
            group("suspects"),
            bool(arrays["exact"]),
            arrays.get("overlaps"),
            arrays.get("pictures"),
            words("rows"),
            words("columns"),
            words("notes"),
            {name[5:]: values for name, values in arrays.items() if name.startswith("fact ")},
        )

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """False rejections; with a trigger detection, AUC, TPR at FPR; with suspects the share that is stopped."""
        found = [filtering.false_rejections(self.clean, level=level)]
        if self.nominal is not None:
            found[0] = found[0].with_notes(f"The threshold was chosen for {self.nominal * 100:.6g}%.")
        if self.stamped is not None and self.works is not None:
            rates = filtering.detection(self.clean, self.stamped, self.works, fprs=fprs, level=level)
            found += [m if self.exact or not _needs_scores(m.name) else _unscored(m) for m in rates]
        if self.overlaps is not None and len(self.overlaps):
            found.append(filtering.mean_share("localisation", self.overlaps, level=level))
        if self.suspects is not None:
            found += filtering.suspects(self.clean, self.suspects, level=level)
        return [measurement.with_notes(*self.notes, *self._asked()) for measurement in found]

    def _asked(self) -> tuple[str, ...]:
        """How much was asked about a clean image, where questions stop early."""
        if self.exact or "clean asked" not in self.facts:
            return ()
        return (f"Asked about a clean image {self.facts['clean asked'].mean():.3g} times on average.",)

    def galleries(self) -> list[Gallery]:
        """Examples of what the filter looked at."""
        if self.pictures is None or not len(self.pictures):
            return []
        caption = "The most suspicious image of each kind; “stopped” and “passed” are the filter's verdicts."
        return [Gallery("What the filter saw", caption, self.pictures, self.rows, self.columns)]


def _needs_scores(name: str) -> bool:
    return name == "auc" or name.startswith("tpr@")


def _unscored(measurement: Measurement) -> Measurement:
    why = "not measured: with stop_early, questions end as soon as the verdict is sure, and scores are bounds"
    return measurement.model_copy(update={"value": None, "low": None, "high": None, "method": "none", "note": why})
