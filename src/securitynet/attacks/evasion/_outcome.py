"""What comes of an evasion attack: predictions for images as they are and perturbed, and some pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.evasion import _gallery
from securitynet.methods.base import Gallery, Output
from securitynet.metrics import evasion
from securitynet.records import Direction, Measurement


@dataclass(frozen=True, eq=False)
class Evasion(Output):
    """What the target takes N images for, as they are and perturbed.

    Attributes:
        indices: Records, N int64.
        labels: True classes, N int64.
        clean: Predictions for the images as they are, N int64.
        epsilons: Budgets, ascending, E float64.
        perturbed: Predictions for the perturbed images, A×E×N int64, for A alternatives.
        sizes: Norms of the perturbations, A×E×N float32.
        norm: ``linf`` or ``l2``.
        alternatives: Names of the surrogates on which examples were made, A; empty for other attacks.
        surrogate: What the surrogates take the images for, A×N int64; A×0 where there are none.
        spent: Questions asked for each image, E×N int64; E×0 for attacks that ask none.
        vanished: Whether the gradient of an image was 0 everywhere, N; empty for attacks without gradients.
        unbounded: Whether steps without a bound got an image misclassified, for some correctly classified ones.
        notes: What a reader must know.
        shown: Pictures: the image, the perturbation made visible, the perturbed image; R×3×C×H×W uint8.
        facts: Of each row of ``shown``: record, label, prediction, and position of its epsilon, R×4 int64.
        class_names: Of all classes.
        examples: Perturbed images, A×E×N×C×H×W float32, if they were to be kept.
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

    @property
    def headline(self) -> tuple[str, ...]:  # type: ignore[override]
        """The accuracy drop, the paper's measure, at each epsilon."""
        return tuple(f"accuracy-drop@epsilon={evasion.epsilon_text(epsilon)}" for epsilon in self.epsilons)

    @property
    def strongest(self) -> NDArray[np.int64]:
        """Predictions for the alternative that evades, E×N: the first that does, or the first of all if none does."""
        evades = self.perturbed != self.labels
        first = evades.argmax(axis=0)
        chosen: NDArray[np.int64] = np.take_along_axis(self.perturbed, first[None], axis=0)[0]
        return chosen

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
        found: dict[str, NDArray[Any]] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                found[item.name] = np.asarray(value, dtype=np.str_) if item.name in _TEXTS else np.asarray(value)
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Evasion:
        """See `Output.from_arrays`."""
        texts = {name: tuple(map(str, np.atleast_1d(arrays[name]))) for name in _TEXTS}
        rest: dict[str, Any] = {name: value for name, value in arrays.items() if name not in _TEXTS}
        return cls(**{**rest, **texts, "norm": texts["norm"][0]})

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Those of `securitynet.metrics.evasion`; of each surrogate as well, where there are several."""
        checks, warning = evasion.masking(
            int(self.vanished.sum()), len(self.vanished), int(self.unbounded.sum()), len(self.unbounded), level=level
        )
        notes = [*self.notes, *([warning] if warning else [])]
        found = self._measured(self.strongest, level)
        for number in range(len(self.alternatives) if len(self.alternatives) > 1 else 0):
            own = self._measured(self.perturbed[number], level)[1:]
            found += [m.renamed(f"surrogate-{number + 1}").with_notes(self.alternatives[number]) for m in own]
        found += self._of_surrogates(level) + self._spent(level) + checks
        told = ("accuracy-drop", "robust-accuracy", "success")
        return [m.with_notes(*notes) if m.name.startswith(told) else m for m in found]

    def galleries(self) -> list[Gallery]:
        """Some of the images that evade: as they are, the perturbation, and what is shown to the target."""
        return _gallery.galleries(self.shown, self.facts, self.epsilons, self.class_names)

    def _measured(self, predictions: NDArray[np.int64], level: float) -> list[Measurement]:
        return evasion.measure(self.labels, self.clean, predictions, self.epsilons.tolist(), level=level)

    def _of_surrogates(self, level: float) -> list[Measurement]:
        found = []
        for number, predictions in enumerate(self.surrogate if self.surrogate.shape[1] else ()):
            name = "surrogate-accuracy" if len(self.alternatives) == 1 else f"surrogate-{number + 1}.surrogate-accuracy"
            accuracy = evasion.share(
                name,
                int((predictions == self.labels).sum()),
                len(self.labels),
                "",
                direction=Direction.LOWER,
                level=level,
            )
            found.append(accuracy.with_notes(self.alternatives[number]))
        return found

    def _spent(self, level: float) -> list[Measurement]:
        asked = [row[row > 0] for row in (self.spent if self.spent.shape[1] else ())]
        names = [f"queries@epsilon={evasion.epsilon_text(epsilon)}" for epsilon in self.epsilons]
        return [
            evasion.median(name, row, level=level) for name, row in zip(names, asked, strict=bool(asked)) if len(row)
        ]


_TEXTS = ("norm", "alternatives", "notes", "class_names")
