"""The first screen of a report: what was assessed, one line a family with a grade, and what to do next.

The page and the terminal show the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families import membership
from securitynet.reports.families._membership_controls import find_blind_auc, groups_differ
from securitynet.reports.grades import GradedFamily, grade_families
from securitynet.reports.next_steps import NextStep, list_proposed, propose_first, propose_step
from securitynet.results.document import ResultDocument
from securitynet.results.grades import GRADES

MOST_FILES = 5
"""Files of records that the first screen names."""


@dataclass(frozen=True)
class FamilyLine:
    """One family.

    Attributes:
        finding: Its grade, and the number behind it.
        step: What to do next; None if the line above has it.
        rows: How many lines the step serves; 0 if the line above has it.
        untried: Whether nothing of the family was requested; of such lines, those of families that can be assessed
            under the access share a step, and so do the others.
    """

    finding: GradedFamily
    step: NextStep | None
    rows: int = 1
    untried: bool = False


@dataclass(frozen=True)
class FirstScreen:
    """What stands before everything else.

    Attributes:
        facts: (what, in words): the verdict, the model, the data, how membership is known, whether the controls hold,
            and the records that rank highest where a weakness to membership inference is shown.
        troubled: Those of the facts that cast doubt on the numbers.
        lines: The families: those that were assessed, then the others.
    """

    facts: tuple[tuple[str, str], ...]
    troubled: frozenset[str]
    lines: tuple[FamilyLine, ...]

    @property
    def urgent(self) -> FamilyLine | None:
        """The line with the worst grade among those whose step has a command; None if there is none."""
        able = [line for line in self.lines if line.step is not None and line.step.command is not None]
        return min(able, key=lambda line: GRADES.index(line.finding.grade), default=None)

    def name_families(self, line: FamilyLine) -> str:
        """Titles of the families that the step of a line serves, such as "Evasion, model stealing"."""
        start = self.lines.index(line)
        titles = [served.finding.title for served in self.lines[start : start + line.rows]]
        return ", ".join([titles[0], *(title.lower() for title in titles[1:])])


def make_first_screen(document: ResultDocument, out: Path | None = None) -> FirstScreen:
    """The first screen of a result.

    Args:
        document: The result.
        out: Its folder, for commands that go on with it.
    """
    findings = grade_families(document)
    names = {trial.name.partition(".")[0] for trial in document.trials}
    untried = [finding for finding in findings if finding.family not in names]
    lines = [FamilyLine(f, propose_step(document, f, out)) for f in findings if f not in untried]
    for able in (True, False):
        group = [finding for finding in untried if bool(list_proposed(document, finding.family)) is able]
        if group:
            step = propose_first(document, [finding.family for finding in group], out)
            lines.append(FamilyLine(group[0], step, len(group), untried=True))
            lines += [FamilyLine(finding, None, 0, untried=True) for finding in group[1:]]
    troubled = {"Controls"} if groups_differ(document) else set()
    if verdict.write_doubts(document):
        troubled.add("Checks")
    if document.policy is not None and not document.policy.met:
        troubled.add("Verdict")
    return FirstScreen(_describe(document, findings), frozenset(troubled), tuple(lines))


def describe_verdict(document: ResultDocument, findings: Sequence[GradedFamily]) -> str:
    """Whether the model is all right, as far as the grades say, in one sentence.

    Args:
        document: The result.
        findings: The grades of all families.
    """
    by_grade: dict[str, list[str]] = {}
    for finding in findings:
        by_grade.setdefault(finding.grade, []).append(finding.title.lower())
    urgent = [f"{title} ({grade})" for grade in ("high", "moderate") for title in by_grade.get(grade, ())]
    slight = by_grade.get("slight", [])
    parts = []
    if verdict.write_doubts(document):
        parts.append("in doubt, because a check of the model failed")
    if urgent:
        parts.append(f"needs attention: {words.join_words(urgent)}")
    if slight:
        kind = "a slight weakness" if len(slight) == 1 else "slight weaknesses"
        parts.append(f"{'also ' if urgent else ''}{kind}: {words.join_words(slight)}")
    elif not urgent and len(by_grade.get("not assessed", ())) < len(findings):
        parts.append("no weakness is shown by what was tried, which does not mean that there is none")
    if "undecided" in by_grade:
        parts.append(f"undecided: {words.join_words(by_grade['undecided'])}")
    if "not assessed" in by_grade:
        parts.append(f"not assessed: {words.join_words(by_grade['not assessed'])}")
    if document.policy is not None:
        parts.append("the policy is met" if document.policy.met else "the policy is not met")
    return "; ".join(parts)


def _describe(document: ResultDocument, findings: Sequence[GradedFamily]) -> tuple[tuple[str, str], ...]:
    target, dataset = document.target, document.dataset
    by_name = {m.name: m for m in document.measurements}
    facts = [
        ("Verdict", describe_verdict(document, findings)),
        (
            "Model",
            f"{target.reference}, {words.count_noun(target.num_classes, 'class', 'classes')}{_accuracy(by_name)}",
        ),
        ("Data", f"{dataset.reference}: {dataset.members:,} members, {dataset.non_members:,} non-members"),
        ("Membership", _membership(document)),
        ("Controls", _controls(document)),
    ]
    doubts = verdict.write_doubts(document)
    if doubts:
        facts.append(("Checks", " ".join(doubts)))
    ranked = _rank_records(document, findings)
    return (*facts, ("Records", ranked)) if ranked else tuple(facts)


def _rank_records(document: ResultDocument, findings: Sequence[GradedFamily]) -> str:
    """The members that the strongest attack ranks highest; empty where no weakness to membership inference is shown."""
    if not any(f.family == "membership" and f.grade in ("high", "moderate", "slight") for f in findings):
        return ""
    by_trial = {exposed.trial: exposed for exposed in document.exposed if exposed.members}
    trial = next((s.trial.name for s in membership.rank_attacks(document) if s.trial.name in by_trial), None)
    if trial is None:
        return ""
    files = [member.file for member in by_trial[trial].members[:MOST_FILES]]
    return f"ranked highest by {verdict.title_attack(trial)}: {', '.join(files)}; exposed.csv ranks all"


def _accuracy(by_name: dict[str, Measurement]) -> str:
    test, train = (by_name.get(f"target.{part}_accuracy") for part in ("test", "train"))
    numbers = [words.write_numbers(m, significant=1) if m else None for m in (test, train)]
    if numbers[0] is None or numbers[1] is None:
        return ""
    return f"; right on {numbers[1].value} of the members and {numbers[0].value} of the non-members"


def _membership(document: ResultDocument) -> str:
    dataset = document.dataset
    if dataset.membership == "assumed":
        return (
            f"assumed: the members are taken to be those of the {dataset.split} split; nothing in the model confirms it"
        )
    if dataset.members_stated:
        return "known, from the list that was given"
    if document.target.reference.startswith("outputs:"):
        return "known, from the recording"
    return "known, from the record that its training wrote"


def _controls(document: ResultDocument) -> str:
    if not any(trial.name.startswith("membership.") and trial.status == "ok" for trial in document.trials):
        return "none, because no membership attack finished"
    facts = document.controls
    auc = find_blind_auc(document)
    numbers = words.write_numbers(auc, significant=1) if auc else None
    written = f"AUC\u00a0{numbers.value}, {words.keep_unbroken(numbers.interval)}" if numbers else ""
    copies = facts.copies if facts is not None else None
    also = (
        f"; {words.count_noun(copies.non_members, 'copy', 'copies')} left out" if copies and copies.non_members else ""
    )
    if groups_differ(document):
        return f"do not hold: members and non-members differ even without the model ({written}){also}"
    if facts is not None and facts.blind is not None and numbers is not None:
        return f"hold: without the model, members and non-members cannot be distinguished ({written}){also}"
    why = facts.why_not if facts is not None and facts.why_not else "they were not measured"
    return f"unknown: {why}{also}"
