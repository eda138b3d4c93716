"""The first screen of a report: what was assessed, one line a family with a grade, and what to do next.

The page and the terminal show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families._membership_controls import find_blind_auc, groups_differ
from securitynet.reports.grades import GradedFamily, grade_families
from securitynet.reports.next_steps import NextStep, propose_step, write_command
from securitynet.results.document import ResultDocument


@dataclass(frozen=True)
class FamilyLine:
    """One family.

    Attributes:
        finding: Its grade, and the number behind it.
        step: What to do next; None if the line above has it.
        rows: How many lines the step serves.
    """

    finding: GradedFamily
    step: NextStep | None
    rows: int = 1


@dataclass(frozen=True)
class FirstScreen:
    """What stands before everything else.

    Attributes:
        facts: (what, in words): the model, the data, how membership is known, whether the controls hold.
        troubled: Those of the facts that cast doubt on the numbers.
        lines: The families: those that were assessed, then the others.
    """

    facts: tuple[tuple[str, str], ...]
    troubled: frozenset[str]
    lines: tuple[FamilyLine, ...]


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
    if untried:
        attacks = [finding.family for finding in untried if finding.family != "backdoor"]
        changes = {"attacks": attacks} if attacks else {}
        if len(attacks) < len(untried):
            changes["detectors"] = ["neural-cleanse"]
        step = NextStep(
            "Try it." if len(untried) == 1 else "Try them; each takes longer than what ran so far.",
            write_command(document, out, **changes),
        )
        lines += [
            FamilyLine(finding, None if number else step, 0 if number else len(untried))
            for number, finding in enumerate(untried)
        ]
    troubled = {"Controls"} if groups_differ(document) else set()
    if verdict.doubt_sentences(document):
        troubled.add("Checks")
    return FirstScreen(_describe(document), frozenset(troubled), tuple(lines))


def _describe(document: ResultDocument) -> tuple[tuple[str, str], ...]:
    target, dataset = document.target, document.dataset
    by_name = {m.name: m for m in document.measurements}
    facts = [
        ("Model", f"{target.reference}, {words.plural(target.num_classes, 'class', 'classes')}{_accuracy(by_name)}"),
        ("Data", f"{dataset.reference}: {dataset.members:,} members, {dataset.non_members:,} non-members"),
        ("Membership", _membership(document)),
        ("Controls", _controls(document)),
    ]
    doubts = verdict.doubt_sentences(document)
    if doubts:
        facts.append(("Checks", " ".join(doubts)))
    return tuple(facts)


def _accuracy(by_name: dict[str, Measurement]) -> str:
    test, train = (by_name.get(f"target.{part}_accuracy") for part in ("test", "train"))
    numbers = [words.numbers(m, significant=1) if m else None for m in (test, train)]
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
    numbers = words.numbers(auc, significant=1) if auc else None
    written = f"AUC\u00a0{numbers.value}, {words.unbroken(numbers.interval)}" if numbers else ""
    copies = facts.copies if facts is not None else None
    also = f"; {words.plural(copies.non_members, 'copy', 'copies')} left out" if copies and copies.non_members else ""
    if groups_differ(document):
        return f"do not hold: members and non-members differ even without the model ({written}){also}"
    if facts is not None and facts.blind is not None and numbers is not None:
        return f"hold: without the model, members and non-members cannot be distinguished ({written}){also}"
    why = facts.why_not if facts is not None and facts.why_not else "they were not measured"
    return f"unknown: {why}{also}"
