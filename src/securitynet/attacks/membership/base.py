"""What membership attacks share: their output, and the base for those that score one record from its outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.base import Attack, AttackData, Context, Output
from securitynet.metrics import membership, roc
from securitynet.models.signals import Signals
from securitynet.models.target import Target
from securitynet.records import Measurement


@dataclass(frozen=True, eq=False)
class MembershipScores(Output):
    """Scores of records, higher meaning "more likely a member".

    Attributes:
        indices: Records, N int64.
        scores: N float64.
        is_member: The truth, N.
        threshold: From which on the adversary says "member".
        held_out: Records that tuned nothing, N: those on which decisions at the threshold are judged.
        notes: What a reader must know to read the scores; they go to the note of each measurement.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_member: NDArray[np.bool_]
    threshold: float
    held_out: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
        return {
            "indices": self.indices,
            "scores": self.scores,
            "is_member": self.is_member,
            "threshold": np.asarray(self.threshold),
            "held_out": self.held_out,
            "notes": np.asarray(self.notes, dtype=np.str_),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MembershipScores:
        """See `Output.from_arrays`."""
        return cls(
            arrays["indices"],
            arrays["scores"],
            arrays["is_member"],
            float(arrays["threshold"]),
            arrays["held_out"],
            tuple(str(note) for note in arrays.get("notes", ())),
        )

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """AUC, balanced accuracy and TPR at each FPR (`securitynet.metrics.membership`)."""
        measured = membership.measure(
            self.scores,
            self.is_member,
            threshold=self.threshold,
            held_out=self.held_out,
            fprs=fprs,
            level=level,
            seed=seed,
        )
        return [measurement.with_notes(*self.notes) for measurement in measured]


class ThresholdAttack(Attack):
    """An attack that scores each record by a pure function of its outputs and compares it with a threshold.

    A subclass says how a record is scored. Unless it fixes its threshold, the threshold with the best balanced accuracy
    on the records that the adversary knows is used, and judged on the others.
    """

    output: ClassVar[type[Output]] = MembershipScores
    fixed_threshold: ClassVar[float | None] = None

    @abstractmethod
    def score(self, signals: Signals) -> NDArray[np.float64]:
        """One score per record, higher meaning "more likely a member"."""

    def run(self, target: Target, data: AttackData, context: Context) -> MembershipScores:
        """See `Attack.run`."""
        signals = context.signals(target, data)
        scores = self.score(signals)
        is_member = np.isin(signals.indices, data.splits.members)
        if self.fixed_threshold is not None:
            threshold, held_out = self.fixed_threshold, np.ones(len(scores), dtype=bool)
        else:
            known = np.isin(signals.indices, data.splits.known_members) | np.isin(
                signals.indices, data.splits.known_non_members
            )
            threshold = roc.best_threshold(scores[known & is_member], scores[known & ~is_member])
            held_out = ~known
        return MembershipScores(signals.indices, scores, is_member, threshold, held_out)
