"""Compare shadow models with the target: the less they resemble it, the less an attack that uses them shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securitynet.datasets.splits import Indices
from securitynet.models.targets.signals import Signals

TOLERANCE = 0.05
"""By how much the mean accuracy of shadow models may differ from the target's, beyond sampling error."""


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of one model.

    Attributes:
        train: Accuracy on its training records, in [0, 1].
        test: Accuracy on other records, in [0, 1].
        train_records: Number of training records in ``train``.
        test_records: Number of records in ``test``.
    """

    train: float
    test: float
    train_records: int
    test_records: int

    @classmethod
    def of(cls, signals: Signals, members: Indices, non_members: Indices) -> Accuracies:
        """Compute the accuracies from a model's outputs.

        Args:
            signals: Outputs of the model for both groups of records.
            members: Training records, at least one.
            non_members: Other records, at least one.
        """
        train, test = signals.select(members).correct, signals.select(non_members).correct
        return cls(float(train.mean()), float(test.mean()), len(train), len(test))

    @property
    def overfitting(self) -> float:
        """Train accuracy minus test accuracy."""
        return self.train - self.test


def list_fidelity_warnings(
    target: Accuracies, shadows: Sequence[Accuracies], assumptions: Sequence[str] = ()
) -> tuple[str, ...]:
    """List warnings, as sentences; empty if the shadow models resemble the target.

    The mean train accuracy, the mean test accuracy and the mean overfitting level of the shadow models must each be
    within `TOLERANCE` plus two standard errors (of the target's own value) of the target's.

    Args:
        target: Accuracies of the target.
        shadows: Accuracies of each shadow model, at least one.
        assumptions: Sentences on how their training may differ from the target's.
    """
    train_error = _standard_error(target.train, target.train_records)
    test_error = _standard_error(target.test, target.test_records)
    both_errors = math.hypot(train_error, test_error)
    rows = (
        ("train accuracy", target.train, [s.train for s in shadows], train_error),
        ("test accuracy", target.test, [s.test for s in shadows], test_error),
        ("overfitting level", target.overfitting, [s.overfitting for s in shadows], both_errors),
    )
    different = [
        f"{name} {np.mean(values):.3f} against {value:.3f}"
        for name, value, values, error in rows
        if abs(float(np.mean(values)) - value) > TOLERANCE + 2 * error
    ]
    if not different:
        return ()
    why = f" ({'; '.join(assumptions)})" if assumptions else ""
    return (
        f"WARNING: the shadow models are unlike the target: {', '.join(different)}{why}. What rests on them may "
        "say little about this target.",
    )


def _standard_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)
