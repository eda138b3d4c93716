"""What attacks and detectors share: data, context, what they return, and the call that checks the threat model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import union
from securitynet.datasets.splits import Splits
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.store.model_record import TrainedModel
from securitynet.models.targets.signals import Embeddings, Progress, Signals, collect, collect_embeddings
from securitynet.models.targets.target import Target
from securitynet.records import Measurement, Queries, Record, ThreatModel

if TYPE_CHECKING:
    from securitynet.models.training.poisoned_dataset import Poisoner
    from securitynet.models.training.training_defense import Protection


@dataclass(frozen=True, eq=False)
class TrialData:
    """A dataset, who is who in it, and what else is known.

    Attributes:
        dataset: Where the records are.
        splits: Who is a member, and what the adversary knows.
        trained: How the target was trained, where that is known: shadow models are trained likewise.
        auxiliary: Another dataset that the adversary holds, for ``out-of-distribution`` threat models; None if there is
            none.
        protection: The defense that ``trained`` names: shadow models are trained with it as well. Without it, attacks
            that need them refuse a target that was trained with a defense.
        poison: What planted a backdoor in the target, where that is known: detectors are then judged on its trigger.
    """

    dataset: ImageDataset
    splits: Splits
    trained: TrainedModel | None = None
    auxiliary: ImageDataset | None = None
    poison: Poisoner | None = None
    protection: Protection | None = None

    @property
    def judged(self) -> NDArray[np.int64]:
        """All members and non-members, sorted: the records on which attacks are judged."""
        return union(self.splits.members, self.splits.non_members)


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


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures in rows and columns, for the report.

    Attributes:
        title: Heading.
        caption: What is to be seen, in a sentence or two.
        images: R×Q×C×H×W uint8, C being 1 or 3.
        rows: What each row shows, R.
        columns: What each column shows, Q.
    """

    title: str
    caption: str
    images: NDArray[np.uint8]
    rows: tuple[str, ...]
    columns: tuple[str, ...]


class Output(ABC):
    """Raw output of a family: arrays that can be kept, and from which measures are computed.

    Class attributes:
        headline: Names of its measurements that say most, for summaries; those that there are will be shown.
    """

    headline: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as named arrays."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Output:
        """The inverse of `arrays`."""

    @abstractmethod
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """What the metrics say of it."""

    def galleries(self) -> list[Gallery]:
        """Its pictures, for families that have any."""
        return []


@dataclass(frozen=True, eq=False)
class SharedWork:
    """Work that several trials need and that is done once: training a shadow model, a generator, a surrogate.

    What it makes is kept in the cache under a key made of its content, where `Method.run` finds it.

    Attributes:
        key: Digest of all that decides what is made: equal keys, equal results.
        what: What it is, in a few words.
        run: Does it; told about progress.
    """

    key: str
    what: str
    run: Callable[[Progress | None], object]


class Method(Record, ABC):
    """An attack or a detector; its fields are its configuration.

    Class attributes:
        kind: Which of the two.
        threat_models: Those under which it works. It also works for an adversary with more access.
        output: The class of what it returns.
        costs: What it takes beyond one cached pass over the records, as the end of "it ..."; None if nothing much.
            Methods that cost more are no part of ``standard``, which `assess` runs unless others are asked for.
        imitates: Whether it trains models like the target, so that its outcome depends on how the target was trained.
    """

    kind: ClassVar[Literal["attack", "detector"]]
    threat_models: ClassVar[tuple[ThreatModel, ...]]
    output: ClassVar[type[Output]]
    costs: ClassVar[str | None] = None
    imitates: ClassVar[bool] = False

    @abstractmethod
    def run(self, target: Target, data: TrialData, context: Context) -> Output:
        """Carry it out. ``target`` allows no more than the threat model does."""

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """What `run` would make and keep that other trials need as well. A study does it first, each piece once.

        Without it `run` does the same, in the same place, with the same result: what is listed here only spares two
        workers from waiting for one another. Listing must be quick and ask the target nothing.
        """
        return ()

    @final
    def __call__(self, target: Target, data: TrialData, context: Context, threat_model: ThreatModel) -> Output:
        """Check that the threat model is one of this method's, narrow the target to it, and run; see `admitted`."""
        narrowed, told = self.admitted(target, context, threat_model)
        return self.run(narrowed, data, told)

    def admitted(self, target: Target, context: Context, threat_model: ThreatModel) -> tuple[Target, Context]:
        """The target narrowed to a threat model, and a context that names it.

        Raises:
            AccessDenied: If the target gives less access than the threat model assumes.
            ConfigurationError: If this method does not serve the threat model.
        """
        if threat_model not in self.threat_models:
            served = ", ".join(map(str, self.threat_models))
            raise ConfigurationError(
                f"{type(self).__name__} does not serve {threat_model}.", hint=f"It serves {served}."
            )
        if not target.access.covers(threat_model.access):
            raise AccessDenied(
                f"{target.reference} is under {target.access.value} access; {threat_model} assumes more."
            )
        return target.under(threat_model.access), replace(context, threat_model=threat_model)
