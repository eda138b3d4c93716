"""Which records the strongest attack exposes: its AUC by correctness of the prediction, by margin and by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from securitynet.attacks.membership._scores import MembershipScores
from securitynet.metrics.slices import Slice, select_extremes
from securitynet.reports import verdict, words
from securitynet.reports.bars import draw_interval
from securitynet.reports.families import membership
from securitynet.results.document import ResultDocument

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

CLASSES = 3
"""How many of the most and of the least exposed classes are shown."""

_TITLES = {
    "correctness": "By correctness of the prediction",
    "margin": "By margin: logit of the true class minus the largest other",
    "class": "By class",
}


@dataclass(frozen=True)
class Part:
    """A group of records, with the attack's AUC on it.

    Attributes:
        name: Of the group.
        members: How many members it has.
        non_members: How many non-members it has.
        numbers: The AUC and its interval as text; None if there are too few records.
        bar: The interval, drawn; None with ``numbers``.
    """

    name: str
    members: int
    non_members: int
    numbers: words.Numbers | None
    bar: Markup | None


@dataclass(frozen=True)
class Breakdown:
    """The AUC of one attack on groups of records.

    Attributes:
        attack: Title of the attack.
        groups: (heading, groups of records).
        omitted: Number of classes that are not shown.
    """

    attack: str
    groups: tuple[tuple[str, tuple[Part, ...]], ...]
    omitted: int


def break_down(document: ResultDocument, assessment: Assessment) -> Breakdown | None:
    """The breakdown of the strongest attack that can be broken down; None if there is none."""
    for strength in membership.rank_attacks(document):
        trial = next((t for t in assessment.trials if t.result.id == strength.trial.id), None)
        if trial is None or not isinstance(trial.output, MembershipScores):
            continue
        slices = trial.output.breakdown(level=assessment.config.level, class_names=document.dataset.classes)
        most, least = select_extremes(slices, "class", CLASSES)
        classes = [s for s in slices if s.by == "class"]
        shown = classes if len(classes) <= 2 * CLASSES else [*most, *reversed(least)]
        kinds = {by: [s for s in slices if s.by == by] for by in ("correctness", "margin")} | {"class": shown}
        groups = tuple((_TITLES[by], tuple(map(_part, parts))) for by, parts in kinds.items() if parts)
        if groups:
            return Breakdown(verdict.title_attack(trial.name), groups, len(classes) - len(shown))
    return None


def _part(piece: Slice) -> Part:
    numbers = words.write_numbers(piece.auc)
    bar = None if numbers is None else draw_interval([piece.auc])
    return Part(piece.name, piece.members, piece.non_members, numbers, bar)
