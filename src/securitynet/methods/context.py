"""`Context`: the environment of a method, namely its seed, cache, device and query count."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Embeddings, Progress, Signals, collect_embeddings, collect_signals
from securitynet.models.targets.target import Target
from securitynet.records import Queries, ThreatModel


@dataclass(eq=False)
class Context:
    """The environment in which a method runs: seed, cache, device, and the count of its queries.

    Attributes:
        seed: All randomness of the method is derived from it.
        cache: Folder for signals, shadow models and the like; None stores nothing.
        device: Where models are trained, as the user writes it: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Called during long work; None reports nothing.
        used: Signals and embeddings that the method used, by the fingerprint of their dataset. They count as queries.
        extra_queries: Counts of further queries, such as those for images that an attack generates.
        threat_model: The threat model of this run, set by `Method.__call__` for methods that support several.
    """

    seed: int = 0
    cache: Path | None = None
    device: str = "auto"
    progress: Progress | None = None
    used: dict[str, list[Signals | Embeddings]] = field(default_factory=dict)
    extra_queries: list[Queries] = field(default_factory=list)
    threat_model: ThreatModel | None = None

    def signals(self, target: Target, data: TrialData, indices: NDArray[np.int64] | None = None) -> Signals:
        """Outputs of the target for records (all members and non-members by default), from the cache where possible.

        Args:
            target: What is queried, under the access of the trial.
            data: Dataset and splits.
            indices: Records of the dataset, N.
        """
        chosen = data.judged if indices is None else indices
        return self._collect(target, data.dataset, chosen, True)

    def embeddings(
        self, target: Target, dataset: ImageDataset, indices: NDArray[np.int64], *, layer: str | None = None
    ) -> Embeddings:
        """Embeddings of records, from the cache where possible; see `collect_embeddings`.

        Args:
            target: Under white-box access.
            dataset: Where the images are.
            indices: Records of the dataset, N.
            layer: Name of another layer than the default one.
        """
        embeddings = collect_embeddings(target, dataset, indices, layer=layer, cache=self.cache, progress=self.progress)
        self.used.setdefault(dataset.fingerprint, []).append(embeddings)
        return embeddings

    def _collect(
        self, target: Target, dataset: ImageDataset, indices: NDArray[np.int64], same_classes: bool
    ) -> Signals:
        signals = collect_signals(
            target, dataset, indices, cache=self.cache, progress=self.progress, same_classes=same_classes
        )
        self.used.setdefault(dataset.fingerprint, []).append(signals)
        return signals

    def queries(self, dataset: ImageDataset | None = None) -> Queries:
        """The query count: the signals used so far, plus `extra_queries`.

        Of several signals of one dataset, the largest is taken as their union, because methods that collect signals
        more than once collect subsets of the same records.

        Args:
            dataset: The assessed dataset, whose records are then counted apart as well.
        """
        of_dataset = {key: max(signals.queries.unique for signals in used) for key, used in self.used.items()}
        total = sum(signals.queries.total for used in self.used.values() for signals in used)
        return Queries(
            total=total + sum(queries.total for queries in self.extra_queries),
            unique=sum(of_dataset.values()) + sum(queries.unique for queries in self.extra_queries),
            records=None if dataset is None else of_dataset.get(dataset.fingerprint, 0),
        )
