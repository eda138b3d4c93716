"""The first part of a page on several targets: the same measurements side by side, and their ROC curves in one plot."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from securitynet.analysis.figures.roc_lines import RocLine
from securitynet.assessments.comparison import measure_differences
from securitynet.assessments.paired_records import pair_records, read_assessed_scores
from securitynet.records import FAMILIES, Measurement
from securitynet.reports import verdict, words
from securitynet.reports.bars import draw_interval, draw_swatch
from securitynet.reports.controls import PREFIXES as CONTROLS
from securitynet.reports.families import membership
from securitynet.reports.grades import GradedFamily, grade_families
from securitynet.reports.roc import RocFigure, choose_strongest, draw_blind_line, draw_roc_figure, draw_roc_lines
from securitynet.results.comparison import MeasuredDifference
from securitynet.results.document import ResultDocument

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment


@dataclass(frozen=True)
class ComparedRow:
    """One measurement of all targets.

    Attributes:
        name: Dotted.
        label: In words.
        cells: Numbers per target; None if not measured or not resolvable.
        bar: All intervals, one below the other.
        difference: The second target's value minus the first's, with an interval, in words; None unless there are two.
        shown: Whether that interval excludes 0.
    """

    name: str
    label: str
    cells: list[words.Numbers | None]
    bar: Markup | None
    difference: str | None
    shown: bool


@dataclass(frozen=True)
class TargetComparison:
    """What the template shows.

    Attributes:
        labels: Names of the targets.
        markers: The look of each in the bars.
        findings: For each family that was assessed on any of them, the grade of each target, in their order.
        sentences: What the numbers say.
        groups: (title, rows), the target's own first, then per attack.
        roc: All curves.
    """

    labels: list[str]
    markers: list[Markup]
    findings: list[tuple[GradedFamily, ...]]
    sentences: list[str]
    groups: list[tuple[str, list[ComparedRow]]]
    roc: RocFigure | None


def compare_targets(
    documents: Sequence[ResultDocument], assessments: Sequence[Assessment], labels: list[str]
) -> TargetComparison:
    """Put the targets side by side; measurements with a value are in the order in which they first appear.

    Args:
        documents: The results, one per target.
        assessments: The same targets with raw outputs, in the same order.
        labels: Their names, in the same order.
    """
    per_target = [{m.name: m for m in document.measurements} for document in documents]
    read = [read_assessed_scores(assessment) for assessment in assessments]

    @functools.cache
    def subtract(first: int, second: int) -> Mapping[str, MeasuredDifference]:
        pair = documents[first], documents[second]
        records = pair_records(*pair, (read[first], read[second]))
        return {difference.name: difference for difference in measure_differences(*pair, records)}

    groups: dict[str, list[ComparedRow]] = {}
    for name in sorted(dict.fromkeys(name for measured in per_target for name in measured), key=_family):
        measurements = [measured.get(name) for measured in per_target]
        numbers = [None if m is None else words.write_numbers(m) for m in measurements]
        there = [(n, m) for n, m in enumerate(measurements) if m is not None and m.value is not None]
        if not there:  # such as rates that so few records cannot resolve; the section of each target says so
            continue
        bar = draw_interval([m for _, m in there], [labels[n] for n, _ in there], [n for n, _ in there])
        difference = subtract(0, 1).get(name) if len(documents) == 2 else None
        owner = _owner(name, documents)
        control = "Controls" if name.startswith(CONTROLS) else "The target itself"
        title = verdict.title_attack(owner) if owner else control
        groups.setdefault(title, []).append(
            ComparedRow(
                name,
                words.find_kind(name).label,
                numbers,
                bar,
                words.write_change(difference.old, difference.new, difference.difference)[2] if difference else None,
                difference is not None and _excludes_zero(difference.difference),
            )
        )
    drawn, left_out = choose_strongest(documents)
    lines: dict[str, RocLine] = {}
    for number, (assessment, label) in enumerate(zip(assessments, labels, strict=True)):
        lines |= draw_roc_lines(assessment, drawn, before=f"{label}: ", ink=number, dash=len(lines))
        if lines:
            lines |= draw_blind_line(assessment, len(lines), before=f"{label}: ", ink=number)
    cache = assessments[0].config.cache
    fprs = sorted({fpr for name in per_target[0] if (fpr := words.find_kind(name).fpr) is not None})
    return TargetComparison(
        labels=labels,
        markers=[draw_swatch(number, (1, 0), marker=True) for number in range(len(labels))],
        findings=[
            findings
            for findings in zip(*(grade_families(document) for document in documents), strict=True)
            if any(finding.grade != "not assessed" for finding in findings)
        ],
        sentences=membership.compare_membership(documents, labels, subtract),
        groups=list(groups.items()),
        roc=draw_roc_figure(lines, fprs, "compared", left_out=left_out, cache=cache) if lines else None,
    )


def _excludes_zero(difference: Measurement) -> bool:
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


def _owner(name: str, documents: Sequence[ResultDocument]) -> str | None:
    """The trial that a measurement is of; None for those of the target itself."""
    trials = {trial.name for document in documents for trial in document.trials}
    return max((trial for trial in trials if name.startswith(f"{trial}.")), key=len, default=None)


def _family(name: str) -> int:
    """Place of a measurement's family on the page: the target itself, the vocabulary's families, plug-ins."""
    order = ["target", *FAMILIES]
    family = name.partition(".")[0]
    return order.index(family) if family in order else len(order)
