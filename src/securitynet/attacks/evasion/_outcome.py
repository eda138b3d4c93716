"""The output of evasion attacks: predictions for images before and after perturbation, and example pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.evasion import _gallery
from securitynet.methods.output import Gallery, Output
from securitynet.metrics import evasion
from securitynet.records import Direction, Measurement


@dataclass(frozen=True, eq=False)
class Evasion(Output):
    """The target's predictions for N images before and after perturbation.

    Attributes:
        indices: Records, N int64.
        labels: True classes, N int64.
        clean: Predictions for the unperturbed images, N int64.
        epsilons: Budgets, ascending, E float64.
        perturbed: Predictions for the perturbed images, A×E×N int64, for A alternatives.
        sizes: Norms of the perturbations, A×E×N float32.
        norm: ``linf`` or ``l2``.
        alternatives: Names of the surrogates on which examples were made, A; empty for other attacks.
        surrogate: Predictions of the surrogates for the unperturbed images, A×N int64; A×0 without surrogates.
        spent: Number of queries for each image, E×N int64; E×0 for attacks without queries of their own.
        vanished: Whether the gradient of an image was 0 everywhere, N; empty for attacks without gradients.
        unbounded: Whether unbounded steps made the target misclassify an image, for some correctly classified images.
        notes: Notes for the reader of the results.
        shown: Pictures of the image, the amplified perturbation and the perturbed image, R×3×C×H×W uint8.
        facts: Record, label, prediction and position of the epsilon of each row of ``shown``, R×4 int64.
        class_names: Names of all classes.
        examples: Perturbed images, A×E×N×C×H×W float32, if they are to be stored.
        parts: Names of the parts of the attack, P; empty for attacks of one part.
        part: The first part that made an image evade at each epsilon or a smaller one, E×N int64, -1 for none.
        goals: The classes that the images were to be classified as, N int64; empty for untargeted attacks.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    epsilons: NDArray[np.float64]
    perturbed: NDArray[np.int64]
    sizes: NDArray[np.float32]
    norm: str = "linf"
    alternatives: tuple[str, ...] = ()
    surrogate: NDArray[np.int64] = field(default_factory=lambda: np.empty((1, 0), dtype=np.int64))
    spent: NDArray[np.int64] = field(default_factory=lambda: np.empty((1, 0), dtype=np.int64))
    vanished: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    unbounded: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    notes: tuple[str, ...] = ()
    shown: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 3, 1, 1, 1), dtype=np.uint8))
    facts: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 4), dtype=np.int64))
    class_names: tuple[str, ...] = ()
    examples: NDArray[np.float32] | None = None
    parts: tuple[str, ...] = ()
    part: NDArray[np.int64] = field(default_factory=lambda: np.empty((1, 0), dtype=np.int64))
    goals: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def headline(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the accuracy drops at each epsilon, which are the paper's measure."""
        return tuple(f"accuracy-drop@epsilon={evasion.write_epsilon(epsilon)}" for epsilon in self.epsilons)

    @property
    def strongest(self) -> NDArray[np.int64]:
        """Predictions for the first alternative that evades, or for the first one if none does, E×N."""
        evades = self.perturbed != self.labels
        first = evades.argmax(axis=0)
        chosen: NDArray[np.int64] = np.take_along_axis(self.perturbed, first[None], axis=0)[0]
        return chosen

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                arrays[item.name] = np.asarray(value, dtype=np.str_) if item.name in _TEXTS else np.asarray(value)
        return arrays

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Evasion:
        texts = {name: tuple(map(str, np.atleast_1d(arrays[name]))) for name in _TEXTS if name in arrays}
        rest: dict[str, Any] = {name: value for name, value in arrays.items() if name not in _TEXTS}
        return cls(**{**rest, **texts, "norm": texts["norm"][0]})

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute the metrics of `securitynet.metrics.evasion`, also for each surrogate if there are several."""
        checks, warning = evasion.measure_masking(
            int(self.vanished.sum()), len(self.vanished), int(self.unbounded.sum()), len(self.unbounded), level=level
        )
        notes = [*self.notes, *([warning] if warning else [])]
        measurements = self._measured(self.strongest, level)
        for number in range(len(self.alternatives) if len(self.alternatives) > 1 else 0):
            own = self._measured(self.perturbed[number], level)[1:]
            measurements += [m.renamed(f"surrogate-{number + 1}").with_notes(self.alternatives[number]) for m in own]
        measurements += self._of_surrogates(level) + self._of_parts(level) + self._of_goals(level)
        measurements += self._spent(level) + checks
        headlines = ("accuracy-drop", "robust-accuracy", "success")
        return [m.with_notes(*notes) if m.name.startswith(headlines) else m for m in measurements]

    def galleries(self) -> list[Gallery]:
        """Show some of the images that evade: the image, the amplified perturbation, and the perturbed image."""
        return _gallery.make_galleries(self.shown, self.facts, self.epsilons, self.class_names)

    def _measured(self, predictions: NDArray[np.int64], level: float) -> list[Measurement]:
        return evasion.measure_evasion(self.labels, self.clean, predictions, self.epsilons.tolist(), level=level)

    def _of_surrogates(self, level: float) -> list[Measurement]:
        measurements = []
        for number, predictions in enumerate(self.surrogate if self.surrogate.shape[1] else ()):
            name = "surrogate-accuracy" if len(self.alternatives) == 1 else f"surrogate-{number + 1}.surrogate-accuracy"
            accuracy = evasion.compute_share(
                name,
                int((predictions == self.labels).sum()),
                len(self.labels),
                "",
                direction=Direction.LOWER,
                level=level,
            )
            measurements.append(accuracy.with_notes(self.alternatives[number]))
        return measurements

    def _of_parts(self, level: float) -> list[Measurement]:
        right = int((self.clean == self.labels).sum())
        none = "No image of the sample is classified correctly."
        return [
            evasion.compute_share(
                f"{name}.share@epsilon={evasion.write_epsilon(epsilon)}",
                int((self.part[e] == number).sum()),
                right,
                none,
                direction=Direction.LOWER,
                level=level,
            )
            for e, epsilon in enumerate(self.epsilons if self.part.shape[1] else ())
            for number, name in enumerate(self.parts)
        ]

    def _of_goals(self, level: float) -> list[Measurement]:
        right = self.clean == self.labels
        reached = np.zeros(len(self.labels), dtype=bool)
        measurements = []
        for epsilon, predicted in zip(self.epsilons, self.strongest, strict=True) if len(self.goals) else ():
            reached |= right & (predicted == self.goals)
            measurements.append(
                evasion.compute_share(
                    f"targeted-success@epsilon={evasion.write_epsilon(epsilon)}",
                    int(reached.sum()),
                    int(right.sum()),
                    "No image of the sample is classified correctly.",
                    direction=Direction.LOWER,
                    level=level,
                )
            )
        return measurements

    def _spent(self, level: float) -> list[Measurement]:
        spent = [row[row > 0] for row in (self.spent if self.spent.shape[1] else ())]
        names = [f"queries@epsilon={evasion.write_epsilon(epsilon)}" for epsilon in self.epsilons]
        return [
            evasion.measure_median(name, row, level=level)
            for name, row in zip(names, spent, strict=bool(spent))
            if len(row)
        ]


_TEXTS = ("norm", "alternatives", "notes", "class_names", "parts")
