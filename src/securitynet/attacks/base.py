"""What all attacks share: data with its splits, a context, and the base class whose call checks the threat model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.signals import Progress, Signals, collect
from securitynet.models.target import Target
from securitynet.models.trained import TrainedModel
from securitynet.records import Measurement, Queries, Record, ThreatModel


@dataclass(frozen=True, eq=False)
class AttackData:
    """A dataset and who is who in it.

    Attributes:
        dataset: Where the records are.
        splits: Who is a member, and what the adversary knows.
        trained: How the target was trained, where that is known: shadow models are trained likewise.
    """

    dataset: ImageDataset
    splits: Splits
    trained: TrainedModel | None = None

    @property
    def judged(self) -> NDArray[np.int64]:
        """All members and non-members, sorted: the records on which attacks are judged."""
        return np.union1d(self.splits.members, self.splits.non_members)


@dataclass(eq=False)
class Context:
    """Where an attack runs: its seed, the cache, and the bill of its queries.

    Attributes:
        seed: All randomness of an attack derives from it.
        cache: Folder for signals, shadow models and the like; None keeps nothing.
        device: Where attack models are trained, as the user writes it.
        progress: Told about long work.
        used: Signals handed out, for the bill.
        asked: Images that were asked about besides those, for the bill: such as an attack makes up as it goes.
        threat_model: The one that is played out; `Attack.__call__` sets it, for attacks that serve several.
    """

    seed: int = 0
    cache: Path | None = None
    device: str = "auto"
    progress: Progress | None = None
    used: list[Signals] = field(default_factory=list)
    asked: list[Queries] = field(default_factory=list)
    threat_model: ThreatModel | None = None

    def signals(self, target: Target, data: AttackData, indices: NDArray[np.int64] | None = None) -> Signals:
        """Outputs of the target for records (all judged ones by default), from the cache where they are known."""
        chosen = data.judged if indices is None else indices
        signals = collect(target, data.dataset, chosen, cache=self.cache, progress=self.progress)
        self.used.append(signals)
        return signals

    def queries(self) -> Queries:
        """What the signals used so far cost, and what was asked besides.

        Of several signals the largest counts as their union: attacks that ask for several ask for parts of one.
        """
        largest = max((signals.queries.unique for signals in self.used), default=0)
        total = sum(signals.queries.total for signals in self.used)
        return Queries(
            total=total + sum(queries.total for queries in self.asked),
            unique=largest + sum(queries.unique for queries in self.asked),
        )


class Output(ABC):
    """Raw output of a family of attacks: arrays that can be kept, and from which measures are computed."""

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


class Attack(Record, ABC):
    """An attack; its fields are its configuration.

    Class attributes:
        threat_models: Those under which it works. It also works for an adversary with more access.
        output: The class of what it returns.
        costs: What it takes beyond one cached pass over the records, as the end of "it ..."; None if nothing much.
            Attacks that cost more are no part of ``standard``, which `assess` runs unless others are asked for.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]]
    output: ClassVar[type[Output]]
    costs: ClassVar[str | None] = None

    @abstractmethod
    def run(self, target: Target, data: AttackData, context: Context) -> Output:
        """Carry out the attack. ``target`` allows no more than the threat model does."""

    @final
    def __call__(self, target: Target, data: AttackData, context: Context, threat_model: ThreatModel) -> Output:
        """Check that the threat model is one of this attack's, narrow the target to it, and run.

        Raises:
            AccessDenied: If the target gives less access than the threat model assumes.
            ConfigurationError: If this attack does not serve the threat model.
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
        return self.run(target.under(threat_model.access), data, replace(context, threat_model=threat_model))
