"""One target's part of the page: all numbers are computed here, and all text is plain (Jinja2 escapes it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from securitynet.attacks import ATTACKS
from securitynet.detectors import DETECTORS
from securitynet.records import FAMILIES, Direction, Measurement
from securitynet.reports import families as family_reports
from securitynet.reports import settings, verdict, words
from securitynet.reports.bars import draw_interval
from securitynet.reports.breakdown import Breakdown, break_down
from securitynet.reports.changes import Changes, describe_changes
from securitynet.reports.controls import PREFIXES as CONTROLS
from securitynet.reports.controls import ControlsPart, find_controls
from securitynet.reports.exposed import Exposed, find_exposed
from securitynet.reports.families import membership
from securitynet.reports.first_screen import FirstScreen, make_first_screen
from securitynet.reports.galleries import ShownGallery, show_galleries
from securitynet.reports.robustness import RobustnessFigure, draw_robustness
from securitynet.reports.roc import RocFigure, choose_strongest, draw_blind_line, draw_roc_figure, draw_roc_lines
from securitynet.reports.what_helps import WhatHelps, describe_training, describe_tried_defenses
from securitynet.results.document import ResultDocument, TrialSummary

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment
    from securitynet.methods.output import Output

MOST_CLASSES = 20


@dataclass(frozen=True)
class MeasurementRow:
    """One measurement.

    Attributes:
        measurement: With name, n and note.
        label: In words.
        numbers: As text, None if it can't be resolved.
        bar: Its interval, drawn.
        better: ``lower`` or ``higher``, for the owner.
        mark: Letter of the footnote with the interval's method.
    """

    measurement: Measurement
    label: str
    numbers: words.Numbers | None
    bar: Markup | None
    better: str
    mark: str | None


@dataclass(frozen=True)
class Block:
    """One attack with its measurements.

    Attributes:
        trial: Its record in ``result.json``.
        title: In words.
        summary: What it does, in a line.
        rows: Empty unless it finished.
        settings: Its configuration, ``name = value``.
        galleries: Its pictures.
    """

    trial: TrialSummary
    title: str
    summary: str
    rows: tuple[MeasurementRow, ...]
    settings: str
    galleries: tuple[ShownGallery, ...] = ()


@dataclass(frozen=True)
class FamilyPart:
    """The blocks of one family.

    Attributes:
        name: Key in `FAMILIES`, or the first part of a plug-in's name.
        title: In words.
        blocks: In the order they ran.
        sentences: What its finished trials show.
        unresolved: What so few records cannot resolve, a sentence for each reason.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    sentences: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One target's part of the page.

    Attributes:
        anchor: Prefix of the ids of its headings, unique on the page.
        label: Name of the target, unique on the page.
        document: Content of its ``result.json``.
        opening: What was assessed, in a sentence.
        sentences: The verdict.
        remarks: How to read the verdict.
        first_screen: Grades, what they mean and what to do next.
        accuracy: Measurements of the target itself.
        blocks: All trials, in the order they ran.
        families: The same trials by family.
        methods: Letter of a footnote -> how the intervals were computed.
        level: Confidence level of the intervals, as text.
        roc: Curves of the strongest membership attacks; None if there are none.
        robustness: Accuracy under attack, a figure for each norm.
        exposed: The most exposed records; None if no membership attack finished.
        breakdown: The strongest membership attack on groups of records; None if there is none.
        classes: Names of the classes, shortened.
        image: Size of the images, as text; None if there are outputs only.
        queries: (what, how many).
        times: (what, how long).
        command: The command line that gives the same numbers.
        toml: The same as a configuration file.
        lacks_weights: Whether the command lacks the weights of a model that was passed in from Python.
        defense: Sentences on the defense that the model was trained with.
        what_helps: The defenses that were tried; None if none were.
        changes: The result against an earlier one; None unless there is one.
    """

    anchor: str
    label: str
    document: ResultDocument
    opening: str
    sentences: list[str]
    remarks: list[str]
    first_screen: FirstScreen
    accuracy: tuple[MeasurementRow, ...]
    controls: ControlsPart | None
    control_rows: tuple[MeasurementRow, ...]
    blocks: tuple[Block, ...]
    families: tuple[FamilyPart, ...]
    methods: dict[str, str]
    level: str
    roc: RocFigure | None
    robustness: tuple[RobustnessFigure, ...]
    exposed: Exposed | None
    breakdown: Breakdown | None
    classes: str
    image: str | None
    queries: list[tuple[str, str]]
    times: list[tuple[str, str]]
    command: str
    toml: str
    lacks_weights: bool
    defense: list[str]
    what_helps: WhatHelps | None
    changes: Changes | None


def make_section(document: ResultDocument, assessment: Assessment, anchor: str, label: str) -> Section:
    """One target's part of the page.

    Args:
        document: Its results.
        assessment: The same with raw outputs and images.
        anchor: Prefix of the ids of its headings, unique on the page.
        label: Name of the target, unique on the page.
    """
    methods, cache = _methods(document.measurements), assessment.config.cache
    drawn, left_out = choose_strongest([document])
    lines = draw_roc_lines(assessment, drawn) | draw_blind_line(assessment, len(drawn))
    classes = document.dataset.classes
    more = f" and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    shape = document.dataset.image_shape
    outputs = {trial.result.id: trial.output for trial in assessment.trials}
    blocks = tuple(_block(document, trial, methods, outputs.get(trial.id)) for trial in document.trials)
    remarks = [
        membership.describe_choice(document),
        membership.describe_identity(document),
        membership.describe_unresolved(document),
    ]
    return Section(
        anchor=anchor,
        label=label,
        document=document,
        opening=verdict.describe_assessment(document),
        sentences=verdict.write_verdict(document),
        remarks=[remark for remark in remarks if remark],
        first_screen=make_first_screen(document, assessment.config.out),
        accuracy=tuple(_row(m, methods) for m in document.measurements if m.name.startswith("target.")),
        controls=find_controls(document),
        control_rows=tuple(_row(m, methods) for m in document.measurements if m.name.startswith(CONTROLS)),
        blocks=blocks,
        families=_families(document, blocks),
        methods={mark: method for method, mark in methods.items()},
        level=", ".join(sorted({words.write_level(m) for m in document.measurements})),
        roc=draw_roc_figure(lines, _fprs(document), anchor, left_out=left_out, cache=cache) if lines else None,
        robustness=draw_robustness(document, f"{anchor}-robustness", cache),
        exposed=find_exposed(document, assessment),
        breakdown=break_down(document, assessment),
        classes=", ".join(classes[:MOST_CLASSES]) + more,
        image=None if shape is None else f"{shape[1]} × {shape[2]} pixels, {'grey' if shape[0] == 1 else 'colour'}",
        queries=_queries(document),
        times=_times(document),
        command=settings.write_assess_command(document),
        toml=settings.write_toml(document),
        lacks_weights=settings.lacks_weights(document),
        defense=describe_training(document),
        what_helps=describe_tried_defenses(document),
        changes=describe_changes(document.comparison) if document.comparison else None,
    )


def describe_attack(name: str) -> tuple[str, str]:
    """Title and one-line summary of an attack or a detector, from its entry in the registry."""
    full = name.partition("@")[0]
    entry = DETECTORS.entries.get(full.removeprefix("backdoor.")) or ATTACKS.entries.get(full)
    summary = entry.summary if entry else ""
    _, colon, rest = summary.partition(": ")
    text = rest if colon else summary
    return verdict.title_attack(name), text[:1].upper() + text[1:]


def _methods(measurements: Sequence[Measurement]) -> dict[str, str]:
    """A letter for each way in which intervals were made, in order of appearance."""
    used = dict.fromkeys(_method(m) for m in measurements if m.value is not None)
    return {method: chr(ord("a") + number) for number, method in enumerate(used)}


def _method(measurement: Measurement) -> str:
    """Describe how an interval was computed, and what a reader must know about the value."""
    return f"{measurement.method} ({measurement.note})" if measurement.note else measurement.method


def _row(measurement: Measurement, methods: dict[str, str]) -> MeasurementRow:
    numbers = words.write_numbers(measurement)
    return MeasurementRow(
        measurement=measurement,
        label=words.find_kind(measurement.name).label,
        numbers=numbers,
        bar=None if numbers is None else draw_interval([measurement]),
        better="higher" if measurement.direction is Direction.HIGHER else "lower",
        mark=None if numbers is None else methods.get(_method(measurement)),
    )


def _families(document: ResultDocument, blocks: Sequence[Block]) -> tuple[FamilyPart, ...]:
    """The blocks by family: those of the vocabulary in its order, then others."""
    by_family: dict[str, list[Block]] = {family: [] for family in FAMILIES}
    for block in blocks:
        by_family.setdefault(block.trial.name.partition(".")[0], []).append(block)
    return tuple(
        FamilyPart(
            name,
            FAMILIES.get(name, verdict.title_attack(name)),
            tuple(family_blocks),
            tuple(family_reports.write_sentences(name, document, verdict.select_finished(document, name))),
            _unresolved(family_blocks),
        )
        for name, family_blocks in by_family.items()
        if family_blocks
    )


def _unresolved(blocks: Sequence[Block]) -> tuple[str, ...]:
    """One sentence for each measure that has no value, and the reason; the attacks in question are named or counted."""
    with_rows = [block for block in blocks if block.rows]
    reasons: dict[tuple[str, str], list[str]] = {}
    for block in with_rows:
        for row in block.rows:
            if row.numbers is None:
                reason = row.measurement.note or "not measured"
                reasons.setdefault((row.label, reason), []).append(block.title)
    sentences = []
    for (label, reason), titles in reasons.items():
        of = "all attacks" if len(titles) == len(with_rows) > 1 else words.join_words(titles)
        sentences.append(f"{label} of {of}: {reason.removesuffix('.')}.")
    return tuple(sentences)


def _block(document: ResultDocument, trial: TrialSummary, methods: dict[str, str], output: Output | None) -> Block:
    title, summary = describe_attack(trial.name)
    return Block(
        trial=trial,
        title=title,
        summary=summary,
        rows=tuple(_row(m, methods) for m in verdict.select_measurements(document, trial)),
        settings=", ".join(f"{key} = {value}" for key, value in trial.configuration.items()),
        galleries=show_galleries(output.galleries()) if trial.status == "ok" and output is not None else (),
    )


def _fprs(document: ResultDocument) -> list[float]:
    rates = {words.find_kind(m.name).fpr for m in document.measurements}
    return sorted(fpr for fpr in rates if fpr is not None)


def _queries(document: ResultDocument) -> list[tuple[str, str]]:
    names = {
        "total": "Images queried, repeats included",
        "unique": "Distinct images among them",
        "sent": "Sent to the target in this run",
    }
    rows = [(words_, f"{document.queries[key]:,}") for key, words_ in names.items() if key in document.queries]
    if {"total", "sent"} <= document.queries.keys():
        rest = max(document.queries["total"] - document.queries["sent"], 0)
        source = "Read from the recording" if _is_recording(document) else "Read from the cache"
        rows.append((source, f"{rest:,}"))
    return rows


def _times(document: ResultDocument) -> list[tuple[str, str]]:
    names = {"signals": "Querying the target", "total": "Querying the target, and all attacks"}
    rows = [
        (text, words.write_duration(document.seconds[key])) for key, text in names.items() if key in document.seconds
    ]
    for trial in document.trials:
        if trial.status == "ok" and trial.seconds:
            title = f"{verdict.title_attack(trial.name)} and its measurements"
            when = " (in an earlier run)" if trial.reused else ""
            rows.append((title, words.write_duration(sum(trial.seconds.values())) + when))
    return rows


def _is_recording(document: ResultDocument) -> bool:
    return document.target.reference.startswith("outputs:")
