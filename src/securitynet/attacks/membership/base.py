"""The base classes of membership attacks that score each record by itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership._scores import MembershipScores, check_score_count
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics import roc
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target

FEWEST_PER_CLASS = 10
"""Smallest number of known members, and of known non-members, with which a class gets its own threshold."""


class TunedThreshold(Attack):
    """An attack that scores each record by itself and compares the score with a threshold.

    Unless a subclass fixes the threshold, it is the one with the best balanced accuracy on the records that the
    adversary knows, and it is evaluated on the others.

    Attributes:
        per_class: Whether each class has its own threshold (Song and Mittal, 2021, section 4.1). A class of which the
            adversary knows fewer than `FEWEST_PER_CLASS` members or non-members keeps the common one. AUC and TPR at
            FPR do not depend on it, because they rank all records by their scores.
    """

    output: ClassVar[type[Output]] = MembershipScores
    fixed_threshold: ClassVar[float | None] = None

    per_class: bool = Field(default=False, description="Tune a threshold for each class.")

    @model_validator(mode="after")
    def _threshold_is_tuned(self) -> TunedThreshold:
        if self.per_class and self.fixed_threshold is not None:
            raise ConfigurationError(
                f"{type(self).__name__} has a fixed threshold; there is nothing to tune for each class.",
                hint="Leave per_class out.",
            )
        return self

    @abstractmethod
    def scores(self, target: Target, data: TrialData, signals: Signals, context: Context) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member".

        Args:
            target: The target.
            data: Data of the trial.
            signals: Outputs of the target for the records.
            context: Seed, cache and device.
        """

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        signals = context.signals(target, data)
        scores = self.scores(target, data, signals, context)
        if self.fixed_threshold is not None:
            return MembershipScores.of(signals, data, scores, self.fixed_threshold)
        known = find_known_records(signals.indices, data)
        threshold = tune_threshold(
            scores, np.isin(signals.indices, data.splits.members), known, signals.labels if self.per_class else None
        )
        return MembershipScores.of(signals, data, scores, threshold, ~known)


class ThresholdAttack(TunedThreshold):
    """A `TunedThreshold` whose score is a pure function of the target's outputs for the record."""

    @abstractmethod
    def score(self, signals: Signals) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member"."""

    @override
    def scores(self, target: Target, data: TrialData, signals: Signals, context: Context) -> NDArray[np.float64]:
        return self.score(signals)


def find_known_records(indices: NDArray[np.int64], data: TrialData) -> NDArray[np.bool_]:
    """Return whether an adversary with partial data knows the membership of each record, N."""
    return np.isin(indices, data.splits.known_members) | np.isin(indices, data.splits.known_non_members)


def tune_threshold(
    scores: NDArray[np.float64],
    is_member: NDArray[np.bool_],
    known: NDArray[np.bool_],
    labels: NDArray[np.int64] | None = None,
) -> float | NDArray[np.float64]:
    """Return the threshold with the best balanced accuracy on the known records, common or by class.

    Args:
        scores: Scores, N; higher means "more likely a member".
        is_member: True membership, N; used for known records only.
        known: Whether the adversary knows the membership of each record, N.
        labels: True classes, N, for thresholds by class; None for a common threshold.

    Returns:
        One threshold, or N with ``labels``.

    Raises:
        SplitError: If no members or no non-members are known.
        SecurityNetError: If a score is NaN.
    """
    check_score_count(scores, len(is_member))
    if not (known & is_member).any() or not (known & ~is_member).any():
        raise SplitError(
            "Tuning a threshold needs known members and known non-members; here one group is empty.",
            hint="Let the adversary know a share of the records with --known.",
        )
    common = roc.find_best_threshold(scores[known & is_member], scores[known & ~is_member])
    if labels is None:
        return common
    thresholds = np.full(len(scores), common)
    for label in np.unique(labels):
        of_class = labels == label
        members, non_members = scores[of_class & known & is_member], scores[of_class & known & ~is_member]
        if min(len(members), len(non_members)) >= FEWEST_PER_CLASS:
            thresholds[of_class] = roc.find_best_threshold(members, non_members)
    return thresholds
