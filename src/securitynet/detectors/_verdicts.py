"""The output of input filters: verdicts on clean images, on images with a trigger, and on images of unknown origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.output import Gallery, Output
from securitynet.metrics import filtering
from securitynet.metrics.filtering import FilterDecisions
from securitynet.records import Measurement

TRIGGERED = "stamped"
"""Name of the images with the trigger in trial files and in the seeds of earlier versions, so it does not change."""


@dataclass(frozen=True, eq=False)
class FilterVerdicts(Output):
    """Verdicts of an input filter.

    Attributes:
        indices: Clean records that were judged, N int64.
        clean: Verdicts on them.
        threshold: Images with a higher score are stopped.
        nominal: False rejection rate that the threshold was chosen for; None if there is none.
        calibration: Scores of the other clean images that the threshold was chosen from; empty if there are none.
        triggered: Verdicts on records with the trigger, M; None if no trigger is known.
        works: Whether the trigger changes the prediction of each of them, M; None without a known trigger.
        suspects: Verdicts on images of unknown origin; None if none were given.
        exact: Whether scores are exact. If queries stopped as soon as the verdict was certain, they are bounds, and no
            ROC curve can be computed from them.
        overlaps: Intersection over union of the located region and the trigger, for images with the trigger that are
            stopped and on which it works; None for filters that locate no region.
        pictures: Pictures, R×Q×C×H×W uint8.
        rows: Description of each row of pictures, R.
        columns: Description of each column, Q.
        notes: Notes for the reader, which are added to each measurement.
        facts: Further arrays to store.
    """

    headline: ClassVar[tuple[str, ...]] = ("false-rejection-rate", "detection-rate", "auc", "suspects-flagged")

    indices: NDArray[np.int64]
    clean: FilterDecisions
    threshold: float
    nominal: float | None
    calibration: NDArray[np.float64]
    triggered: FilterDecisions | None = None
    works: NDArray[np.bool_] | None = None
    suspects: FilterDecisions | None = None
    exact: bool = True
    overlaps: NDArray[np.float64] | None = None
    pictures: NDArray[np.uint8] | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        groups = {"clean": self.clean, TRIGGERED: self.triggered, "suspects": self.suspects}
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
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FilterVerdicts:
        def group(name: str) -> FilterDecisions | None:
            scores = arrays.get(f"{name}_scores")
            return None if scores is None else FilterDecisions(scores, arrays[f"{name}_flagged"])

        def words(name: str) -> tuple[str, ...]:
            return tuple(str(word) for word in arrays.get(name, ()))

        nominal = float(arrays["nominal"])
        return cls(
            arrays["indices"],
            FilterDecisions(arrays["clean_scores"], arrays["clean_flagged"]),
            float(arrays["threshold"]),
            None if np.isnan(nominal) else nominal,
            arrays["calibration"],
            group(TRIGGERED),
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
        """Compute false rejections; detection, AUC and TPR at FPR for a known trigger; and stopped suspects."""
        measurements = [filtering.measure_false_rejections(self.clean, level=level)]
        if self.nominal is not None:
            measurements[0] = measurements[0].with_notes(f"The threshold was chosen for {self.nominal * 100:.6g}%.")
        if self.triggered is not None and self.works is not None:
            rates = filtering.measure_detection(self.clean, self.triggered, self.works, fprs=fprs, level=level)
            measurements += [m if self.exact or not _needs_scores(m.name) else _unscored(m) for m in rates]
        if self.overlaps is not None and len(self.overlaps):
            measurements.append(filtering.measure_mean_share("localisation", self.overlaps, level=level))
        if self.suspects is not None:
            measurements += filtering.measure_suspects(self.clean, self.suspects, level=level)
        return [measurement.with_notes(*self.notes, *self._describe_query_count()) for measurement in measurements]

    def _describe_query_count(self) -> tuple[str, ...]:
        """Return a note on the mean number of queries per clean image, if queries stop early."""
        if self.exact or "clean asked" not in self.facts:
            return ()
        return (f"A clean image was queried {self.facts['clean asked'].mean():.3g} times on average.",)

    def galleries(self) -> list[Gallery]:
        """Show the most suspicious images of each group."""
        if self.pictures is None or not len(self.pictures):
            return []
        caption = "The most suspicious image of each kind; “stopped” and “passed” are the filter's verdicts."
        return [Gallery("What the filter saw", caption, self.pictures, self.rows, self.columns)]


def _needs_scores(name: str) -> bool:
    return name == "auc" or name.startswith("tpr@")


def _unscored(measurement: Measurement) -> Measurement:
    why = "not measured: with stop_early, queries end as soon as the verdict is certain, and scores are bounds"
    return measurement.model_copy(update={"value": None, "low": None, "high": None, "method": "none", "note": why})
