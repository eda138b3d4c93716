"""What attacks and detectors share: data, context, what they return, and the call that checks the threat model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.records import Measurement, Record, ThreatModel


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
