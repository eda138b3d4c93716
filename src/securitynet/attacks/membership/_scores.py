"""The output of membership attacks. No torch: reports read it, and need no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership._confidence import compute_margin
from securitynet.errors import ConfigurationError
from securitynet.methods.output import Output
from securitynet.metrics import membership
from securitynet.metrics.slices import Slice, compute_slices
from securitynet.records import Measurement

if TYPE_CHECKING:
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.signals import Signals


@dataclass(frozen=True, eq=False)
class MembershipScores(Output):
    """Scores of records; a higher score means "more likely a member".

    Attributes:
        indices: Records, N int64.
        scores: Scores, N float64.
        is_member: True membership, N.
        threshold: Score from which on the adversary decides "member": one number, or N if it depends on the record.
        held_out: Whether each record was held out of all tuning, N; decisions at the threshold are evaluated on these.
        notes: Notes for the reader; they are added to the note of each measurement.
        labels: True classes, N, for the breakdown by class.
        correct: Whether the target's prediction is the label, N, for the breakdown by correctness.
        margin: Logit of the true class minus the largest other logit, N, for the breakdown by margin; None if the
            target returns labels only.
    """

    headline: ClassVar[tuple[str, ...]] = ("auc",)

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_member: NDArray[np.bool_]
    threshold: float | NDArray[np.float64]
    held_out: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None
    correct: NDArray[np.bool_] | None = None
    margin: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        signals: Signals,
        data: TrialData,
        scores: NDArray[np.float64],
        threshold: float | NDArray[np.float64],
        held_out: NDArray[np.bool_] | None = None,
        notes: tuple[str, ...] = (),
    ) -> MembershipScores:
        """Combine scores with the true membership and the columns of the breakdowns.

        Args:
            signals: Outputs for N records, each a member or a non-member.
            data: Data of the trial, which determines the members.
            scores: Scores, N.
            threshold: Threshold, one or N.
            held_out: Whether each record was held out, N; all by default.
            notes: See the attribute.

        Raises:
            SecurityNetError: If a score is NaN.
        """
        check_score_count(scores, len(signals))
        return cls(
            signals.indices,
            scores,
            np.isin(signals.indices, data.splits.members),
            threshold,
            np.ones(len(scores), dtype=bool) if held_out is None else held_out,
            notes,
            signals.labels,
            signals.correct,
            None if signals.head == "labels" else compute_margin(signals.logits, signals.labels),
        )

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        columns = {"labels": self.labels, "correct": self.correct, "margin": self.margin}
        return {
            "indices": self.indices,
            "scores": self.scores,
            "is_member": self.is_member,
            "threshold": np.asarray(self.threshold),
            "held_out": self.held_out,
            **{name: values for name, values in columns.items() if values is not None},
            **({"notes": np.asarray(self.notes, dtype=np.str_)} if self.notes else {}),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MembershipScores:
        threshold = arrays["threshold"]
        return cls(
            arrays["indices"],
            arrays["scores"],
            arrays["is_member"],
            threshold if threshold.ndim else float(threshold),
            arrays["held_out"],
            tuple(str(note) for note in arrays.get("notes", ())),
            arrays.get("labels"),
            arrays.get("correct"),
            arrays.get("margin"),
        )

    @override
    def without(self, records: NDArray[np.int64]) -> MembershipScores:
        """The same without some of the records; all remain where a group would have none to be judged on."""
        rest = ~np.isin(self.indices, records)
        judged = rest & self.held_out
        if rest.all() or not (judged & self.is_member).any() or not (judged & ~self.is_member).any():
            return self
        by_record: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[rest]
            for name in ("indices", "scores", "is_member", "held_out", "labels", "correct", "margin")
        }
        threshold = self.threshold[rest] if isinstance(self.threshold, np.ndarray) else self.threshold
        return replace(self, **by_record, threshold=threshold)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute AUC, balanced accuracy, advantage, TPR at each FPR and epsilon (`measure_membership`)."""
        measured = membership.measure_membership(
            self.scores,
            self.is_member,
            threshold=self.threshold,
            held_out=self.held_out,
            fprs=fprs,
            level=level,
            seed=seed,
        )
        return [measurement.with_notes(*self.notes) for measurement in measured]

    def breakdown(self, *, level: float = 0.95, class_names: Sequence[str] | None = None) -> list[Slice]:
        """Break the attack down by correctness, margin and class, on the held-out records; see `metrics.slices`."""
        held_out = self.held_out

        def part(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[held_out]

        return compute_slices(
            self.scores[held_out],
            self.is_member[held_out],
            labels=part(self.labels),
            correct=part(self.correct),
            margin=part(self.margin),
            class_names=class_names,
            called=(self.scores >= self.threshold)[held_out],
            level=level,
        )


def check_score_count(scores: Any, records: int) -> None:
    """Check that there is a score for each record.

    Args:
        scores: What an attack, which may be a plug-in's, returned.
        records: Number of records.

    Raises:
        ConfigurationError: If they are not as many numbers, or one is NaN, which cannot be ranked.
    """
    if not isinstance(scores, np.ndarray) or scores.dtype.kind not in "fiub" or scores.shape != (records,):
        given = f"{scores.shape} {scores.dtype}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise ConfigurationError(f"The attack gives no array of {records} scores, one for each record, but {given}.")
    missing = int(np.isnan(scores).sum())
    if missing:
        raise ConfigurationError(
            f"The attack gives {missing} of {len(scores)} records no score (NaN).",
            hint="Check the outputs of the target and, for attacks with shadow models, the number of shadow models.",
        )
