"""The output of stealing attacks: predictions of the surrogates and of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.output import Gallery, Output
from securitynet.metrics import stealing
from securitynet.records import Measurement


@dataclass(frozen=True, eq=False)
class StolenModels(Output):
    """Predictions of B surrogates, one per query budget, on N records that no surrogate was trained on.

    Attributes:
        indices: The records, N int64: the split's non-members that were not queried.
        labels: True classes, N int64.
        target: The target's predictions, N int64.
        budgets: Queries that each surrogate was trained on, ascending, B int64.
        surrogate: The surrogates' predictions, B×N int64.
        confidence: Their posteriors of these predictions, B×N float32.
        distances: Total-variation distance of their posteriors from the target's, B×N float32.
        saved: Path of each surrogate in the cache folder, B; empty strings without a cache.
        architecture: Architecture of the surrogates.
        notes: Notes for the reader of the results.
        fooled: Whether the target misclassifies adversarial examples made on each surrogate, B×M; M may be 0.
        fooled_by_noise: Whether it misclassifies the same records under noise of that size, M.
        examples: Some of the generated query images, R×Q×C×H×W uint8; empty for attacks that generate none.
        queried: Non-members that are left out because they were queried: with the same pixels, and with nearly the
            same, 2 int64.
    """

    headline: ClassVar[tuple[str, ...]] = ("agreement", "accuracy")

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    target: NDArray[np.int64]
    budgets: NDArray[np.int64]
    surrogate: NDArray[np.int64]
    confidence: NDArray[np.float32]
    distances: NDArray[np.float32]
    saved: tuple[str, ...]
    architecture: str
    notes: tuple[str, ...] = ()
    fooled: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    fooled_by_noise: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    examples: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 1, 1, 1), dtype=np.uint8))
    queried: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, dtype=np.int64))

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **{name: getattr(self, name) for name in _ARRAYS},
            "asked": self.examples,  # the name in files of results
            "queried": self.queried,
            **{name: np.asarray(getattr(self, name), dtype=np.str_) for name in ("saved", "architecture", "notes")},
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> StolenModels:
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            saved=tuple(map(str, arrays["saved"])),
            architecture=str(arrays["architecture"]),
            notes=tuple(map(str, arrays["notes"])),
            examples=arrays["asked"],
            queried=arrays.get("queried", np.zeros(2, dtype=np.int64)),
        )

    @override
    def without(self, records: NDArray[np.int64]) -> StolenModels:
        """These predictions without some of the judged records; the records of ``fooled`` stay."""
        rest = ~np.isin(self.indices, records)
        if rest.all() or not rest.any():
            return self
        by_record = {name: getattr(self, name)[..., rest] for name in _BY_RECORD}
        return replace(self, **by_record)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute the metrics of `securitynet.metrics.stealing` for the largest budget.

        With several budgets, agreement and the like are added for each of them, named ``...@budget=N``.
        """
        last = len(self.budgets) - 1
        measurements = [m.with_notes(*self._notes(last)) for m in self._measured(last, level)]
        if self.queried.any():
            measurements.append(stealing.measure_queried_share(self.queried, len(self.indices), level=level))
        if last:
            for number, budget in enumerate(self.budgets.tolist()):
                named = (
                    m.model_copy(update={"name": f"{m.name}@budget={budget}"}) for m in self._measured(number, level)
                )
                measurements += [
                    m.with_notes(*self._notes(number)) if m.name.startswith("agreement@") else m for m in named
                ]
        return measurements

    def galleries(self) -> list[Gallery]:
        """Return a gallery of the images that a data-free attack generated."""
        if not self.examples.size:
            return []
        rows, columns = self.examples.shape[:2]
        return [
            Gallery(
                title="What was asked",
                caption="Generated query images, from the first queries (top) to the last (bottom). They "
                "need not resemble real images: their purpose is to elicit outputs that a surrogate can learn from.",
                images=self.examples,
                rows=tuple(f"after {share:.0%}" for share in np.linspace(0, 1, rows)),
                columns=tuple(str(number + 1) for number in range(columns)),
            )
        ]

    def _measured(self, number: int, level: float) -> list[Measurement]:
        measurements = stealing.measure_stealing(
            self.labels,
            self.target,
            self.surrogate[number],
            self.confidence[number],
            self.distances[number],
            level=level,
        )
        if self.fooled.shape[1]:
            measurements += stealing.measure_transfer(self.fooled[number], self.fooled_by_noise, level=level)
        return measurements

    def _notes(self, number: int) -> tuple[str, ...]:
        queries = f"The surrogate is a {self.architecture} trained on {int(self.budgets[number]):,} queries"
        where = self.saved[number]
        storage = f", kept in the cache folder as {where}." if where else ", and was not kept."
        return (queries + storage, *self.notes)


_BY_RECORD = ("indices", "labels", "target", "surrogate", "confidence", "distances")

_ARRAYS = (
    "indices",
    "labels",
    "target",
    "budgets",
    "surrogate",
    "confidence",
    "distances",
    "fooled",
    "fooled_by_noise",
)
