"""Signals of records under a target and its shadow models, and shadow models in the role of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import roc

PRETENDED = 4
"""Number of shadow models that take the role of the target to tune an offline attack."""

LOW_FPR = 0.01
"""False-positive rate at which settings are tuned, unless fewer than `FEWEST_ABOVE` non-members would be above it."""

FEWEST_ABOVE = 10
"""Number of non-members that score above the threshold at which settings are tuned, at least."""


@dataclass(frozen=True, eq=False)
class SignalEvidence:
    """A signal of one view of N records under a target and under M shadow models.

    Attributes:
        observed: Signal under the target, N.
        shadows: Signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
    """

    observed: NDArray[np.float64]
    shadows: NDArray[np.float64]
    included: NDArray[np.bool_]

    def select(self, at: NDArray[np.bool_]) -> SignalEvidence:
        """Return the evidence of some of the records, given by a mask or by positions."""
        return SignalEvidence(self.observed[at], self.shadows[:, at], self.included[:, at])


Views = Sequence[SignalEvidence]
"""Evidence of the same records and models, one for each view that the models were queried with."""


def select_evidence(views: Views, at: NDArray[np.bool_]) -> list[SignalEvidence]:
    """Return the evidence of some of the records in each view."""
    return [view.select(at) for view in views]


class Scorer(Protocol):
    """Scores records from all views of them: an attack with its settings."""

    def score_views(self, records: Views, population: Views) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member"."""


S = TypeVar("S", bound=Scorer)


@dataclass(frozen=True, eq=False)
class StandInTarget:
    """A shadow model in the role of the target, whose members the adversary knows.

    Attributes:
        records: Evidence of records that at least one other model was not trained on, for each view.
        population: Evidence of records that this model was not trained on, for each view.
        is_member: Whether this model was trained on each of ``records``, N.
    """

    records: Views
    population: Views
    is_member: NDArray[np.bool_]


def make_stand_ins(
    shadows: NDArray[np.float64],
    included: NDArray[np.bool_],
    target: NDArray[np.float64] | None = None,
    *,
    count: int = PRETENDED,
    least: int = 1,
    separate: bool = False,
) -> list[StandInTarget]:
    """Put the first ``count`` shadow models in the role of the target, with all others as their shadow models.

    Members and non-members of a stand-in are exchangeable but for its training: where each record is in equally many
    training sets, one more of the other models was trained without a given member than without a given non-member, so
    one of them is left out for each member. Without this, a model that remembers nothing would seem to leak.

    Args:
        shadows: Signals under the shadow models, V×M×N for V views.
        included: Whether shadow model m was trained on record n, M×N.
        target: Signals under the target, V×N, if it was asked about these records, none of which it was trained on: it
            then serves as one more shadow model, and one shadow model suffices.
        count: Largest number of stand-ins; models without members or without non-members are skipped.
        least: Models without the record that an attack needs; none is left out for members if fewer remained.
        separate: Whether the population consists of records that are not scored: every second non-member. A scored
            non-member would otherwise be compared with itself, as no record is under the real target.
    """
    models = len(included)
    if target is not None:
        shadows = np.concatenate([shadows, target[:, None]], axis=1)
        included = np.concatenate([included, np.zeros((1, included.shape[1]), dtype=bool)])
    stand_ins = []
    for number in range(min(count, models)):
        others = np.arange(len(included)) != number
        is_member = included[number]
        trained = _leave_one_out(included[others], is_member, least)
        usable = np.asarray(~trained.all(axis=0))
        population = np.asarray(usable & ~is_member)
        if separate:
            population[np.flatnonzero(population)[::2]] = False
            usable &= ~population
        if not (usable & is_member).any() or not (usable & ~is_member).any() or not population.any():
            continue
        views = [SignalEvidence(view[number], view[others], trained) for view in shadows]
        stand_ins.append(
            StandInTarget(select_evidence(views, usable), select_evidence(views, population), is_member[usable])
        )
    return stand_ins


def _leave_one_out(included: NDArray[np.bool_], is_member: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Count one model less as "not trained on the record" for members, in turn, if they all have exactly one more."""
    left_out = (~included).sum(axis=0)
    of_members, of_others = np.unique(left_out[is_member]), np.unique(left_out[~is_member])
    if len(of_members) != 1 or len(of_others) != 1 or of_members[0] != of_others[0] + 1 or of_others[0] < least:
        return included
    members = np.flatnonzero(is_member)
    turn = np.arange(len(members)) % of_members[0] + 1
    columns = ~included[:, members]
    changed = included.copy()
    changed[:, members] |= columns & (columns.cumsum(axis=0) == turn)
    return changed


def choose_by_low_fpr(settings: Sequence[S], stand_ins: Sequence[StandInTarget]) -> S:
    """Return the settings with the highest mean TPR at a low FPR on stand-ins; ties go to the higher AUC.

    Args:
        settings: Attacks that differ in their settings, at least one.
        stand_ins: Shadow models in the role of the target, at least one.
    """

    def quality(attack: S) -> tuple[float, float]:
        rates, aucs = [], []
        for part in stand_ins:
            scores = attack.score_views(part.records, part.population)
            members, others = scores[part.is_member], scores[~part.is_member]
            above = min(max(round(LOW_FPR * len(others)), FEWEST_ABOVE), len(others) - 1)
            rates.append(float((members > np.sort(others)[len(others) - 1 - above]).mean()))
            aucs.append(roc.compute_auc(members, others))
        return float(np.mean(rates)), float(np.mean(aucs))

    return max(settings, key=quality)
