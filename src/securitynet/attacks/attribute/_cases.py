"""What an attribute attack works on: attributes with their records, networks to train, and prepared targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.attribute._controls import ByAttribute
from securitynet.datasets.base import Attribute
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData


@dataclass(frozen=True, eq=False)
class AttributeTask:
    """One attribute: records to learn it from, and records to judge it on."""

    name: str
    attribute: Attribute
    learned: NDArray[np.int64]
    judged: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def digest(self) -> list[object]:
        """JSON that stands for the attribute and its records."""
        parts = (self.attribute.values, self.learned, self.judged)
        return [self.name, list(self.attribute.names), *(hashlib.sha256(part.tobytes()).hexdigest() for part in parts)]

    def unknown_values(self) -> tuple[str, ...]:
        """Return a note on values that occur in the evaluation but not in training."""
        values = self.attribute.values
        unknown = np.setdiff1d(values[self.judged], values[self.learned])
        if len(unknown) == 0:
            return ()
        names = ", ".join(repr(self.attribute.names[value]) for value in unknown[:3])
        count = int(np.isin(values[self.judged], unknown).sum())
        return (f"{count} evaluated records have a value ({names}) that no known record has.",)


@dataclass(frozen=True, eq=False)
class NetworkTraining:
    """One network: its attribute, its seed, the records that it learns from, and those that it is checked on."""

    task: AttributeTask
    seed: int
    records: NDArray[np.int64]
    held_back: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def checks(self) -> bool:
        """Whether this network serves only for the check on held-back records."""
        return len(self.held_back) > 0


@dataclass(frozen=True, eq=False)
class PreparedAttributes:
    """An attack on one target before the networks that learn from its embeddings are trained."""

    tasks: Sequence[AttributeTask]
    everyone: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    random: Sequence[ByAttribute]
    pixels: ByAttribute
    notes: tuple[str, ...]
    data: TrialData
    context: Context

    @property
    def group(self) -> str:
        """Equal for those whose networks can be trained together."""
        attributes = [task.digest() for task in self.tasks]
        return str([self.embeddings.shape, attributes, self.context.seed])
