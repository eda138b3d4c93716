"""Where the strongest attack works: its AUC by correctness of the prediction, by margin and by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from securitynet.attacks.membership.base import MembershipScores
from securitynet.metrics.slices import Slice, extremes
from securitynet.reports import verdict, words
from securitynet.reports.bars import interval_bar
from securitynet.reports.families import membership
from securitynet.results.document import ResultDocument

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

CLASSES = 3
"""Classes shown at either end, where there are more."""

_TITLES = {
    "correctness": "By the answer",
    "margin": "By margin: logit of the true class minus the largest other",
    "class": "By class",
}


@dataclass(frozen=True)
class Part:
    """One part of the records: its name, counts, and the attack's AUC on it."""

    name: str
    members: int
    non_members: int
    numbers: words.Numbers | None
    bar: Markup | None


@dataclass(frozen=True)
class Breakdown:
    """Parts of the records under headings, for one attack; ``omitted`` counts the classes between the two ends."""

    attack: str
    groups: tuple[tuple[str, tuple[Part, ...]], ...]
    omitted: int


def breakdown(document: ResultDocument, assessment: Assessment) -> Breakdown | None:
    """The slices of the strongest attack that kept what they need; None if there is none."""
    for strength in membership.by_strength(document):
        trial = next((t for t in assessment.trials if t.result.id == strength.trial.id), None)
        if trial is None or not isinstance(trial.output, MembershipScores):
            continue
        found = trial.output.breakdown(level=assessment.config.level, class_names=document.dataset.classes)
        most, least = extremes(found, "class", CLASSES)
        classes = [s for s in found if s.by == "class"]
        shown = classes if len(classes) <= 2 * CLASSES else [*most, *reversed(least)]
        kinds = {by: [s for s in found if s.by == by] for by in ("correctness", "margin")} | {"class": shown}
        groups = tuple((_TITLES[by], tuple(map(_part, parts))) for by, parts in kinds.items() if parts)
        if groups:
            return Breakdown(verdict.attack_title(trial.name), groups, len(classes) - len(shown))
    return None


def _part(found: Slice) -> Part:
    numbers = words.numbers(found.auc)
    bar = None if numbers is None else interval_bar([found.auc])
    return Part(found.name, found.members, found.non_members, numbers, bar)
