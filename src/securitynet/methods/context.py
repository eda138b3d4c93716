"""Where a method runs: its seed, its cache, its device, and the count of its queries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Embeddings, Progress, Signals, collect, collect_embeddings
from securitynet.models.targets.target import Target
from securitynet.records import Queries, ThreatModel


@dataclass(eq=False)
class Context:
    """Where a method runs: its seed, the cache, and the bill of its queries.

    Attributes:
        seed: All randomness of a method derives from it.
        cache: Folder for signals, shadow models and the like; None keeps nothing.
        device: Where models are trained, as the user writes it.
        progress: Told about long work.
        used: Signals handed out, by the fingerprint of their dataset, for the bill.
        asked: Images that were asked about besides those, for the bill: such as an attack makes up as it goes.
        threat_model: The one that is played out; `Method.__call__` sets it, for methods that serve several.
    """

    seed: int = 0
    cache: Path | None = None
    device: str = "auto"
    progress: Progress | None = None
    used: dict[str, list[Signals | Embeddings]] = field(default_factory=dict)
    asked: list[Queries] = field(default_factory=list)
    threat_model: ThreatModel | None = None

    def signals(self, target: Target, data: TrialData, indices: NDArray[np.int64] | None = None) -> Signals:
        """Outputs of the target for records (all judged ones by default), from the cache where they are known."""
        chosen = data.judged if indices is None else indices
        return self._collect(target, data.dataset, chosen, True)

    def signals_of(self, target: Target, dataset: ImageDataset, indices: NDArray[np.int64]) -> Signals:
        """Outputs of the target for records of any dataset, also of one whose classes are not the target's.

        The labels of such signals, and what follows from them, mean nothing then.
        """
        return self._collect(target, dataset, indices, False)

    def embeddings(
        self, target: Target, dataset: ImageDataset, indices: NDArray[np.int64], *, layer: str | None = None
    ) -> Embeddings:
        """Embeddings of records, from the cache where they are known; see `collect_embeddings`."""
        found = collect_embeddings(target, dataset, indices, layer=layer, cache=self.cache, progress=self.progress)
        self.used.setdefault(dataset.fingerprint, []).append(found)
        return found

    def _collect(
        self, target: Target, dataset: ImageDataset, indices: NDArray[np.int64], same_classes: bool
    ) -> Signals:
        signals = collect(target, dataset, indices, cache=self.cache, progress=self.progress, same_classes=same_classes)
        self.used.setdefault(dataset.fingerprint, []).append(signals)
        return signals

    def queries(self) -> Queries:
        """What the signals used so far cost, and what was asked besides.

        Of several signals of one dataset the largest counts as their union: methods that ask for several ask for parts
        of one.
        """
        largest = sum(max(signals.queries.unique for signals in used) for used in self.used.values())
        total = sum(signals.queries.total for used in self.used.values() for signals in used)
        return Queries(
            total=total + sum(queries.total for queries in self.asked),
            unique=largest + sum(queries.unique for queries in self.asked),
        )
