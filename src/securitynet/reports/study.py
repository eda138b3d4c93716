"""`write_study_report`: one self-contained HTML file on a study: findings, figures, tables, failures, limits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas
from markupsafe import Markup

from securitynet.analysis import claims, findings, study_frames
from securitynet.analysis.figures import render
from securitynet.analysis.figures.base import Figure, MissingData
from securitynet.analysis.figures.declared import figures
from securitynet.analysis.findings import Finding
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.files import atomic_write, parse_toml
from securitynet.records import TrialResult
from securitynet.reports import words
from securitynet.reports.build import css, environment
from securitynet.results.store import TrialStore
from securitynet.results.subjects import StudyTargetRecord, StudyTargetStore
from securitynet.studies.execution.inspect import inspect_study
from securitynet.studies.execution.run import locate_results
from securitynet.studies.execution.status import Status
from securitynet.version import __version__

if TYPE_CHECKING:
    from securitynet.reports.galleries import ShownGallery

MOST_ROWS = 3000
"""Rows of the table of measurements; ``study export`` has all."""

MOST_GALLERIES = 12

_HOW = ("model", "dataset", "defense", "attack", "method", "access", "auxiliary")
_STATUSES = ("supported", "contradicted", "undecided", "not tested")


@dataclass(frozen=True)
class ShownFigure:
    """A figure or a table of a paper, drawn from the study.

    Attributes:
        figure: Its declaration.
        picture: Inline SVG; None for a table.
        caption: With n, intervals and tests.
        width: Of the picture on a screen, in pixels.
        columns: Of the table below it.
        rows: Of that table.
    """

    figure: Figure
    picture: Markup | None
    caption: str
    width: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Failure:
    """A trial, or a target, that did not come to a result.

    Attributes:
        what: Method or target.
        on: The target.
        reason: In words.
        traceback: None if there is none.
    """

    what: str
    on: str
    reason: str
    traceback: str | None = None


@dataclass(frozen=True)
class StudyPage:
    """What the template shows."""

    title: str
    description: str
    facts: list[tuple[str, str]]
    findings: dict[str, list[Finding]]
    shown: list[ShownFigure]
    lacking: list[tuple[Figure, str]]
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    omitted: int
    galleries: list[tuple[str, ShownGallery]]
    failures: list[Failure]
    skipped: list[tuple[str, str, int]]
    checks: list[tuple[str, str]]
    limits: list[str]
    settings: str
    environments: list[tuple[str, str]] = field(default_factory=list)
    unfinished: str = ""


def write_study_report(folder: Path, path: Path | None = None) -> Path:
    """Write the report on the results in a folder; the file is whole or absent.

    Args:
        folder: Results of ``study run``.
        path: Where to; ``report.html`` in the folder by default. A name that ends in ``.pdf`` makes a PDF.

    Raises:
        ConfigurationError: If there are no results.
        MissingExtra: If a PDF is asked for and WeasyPrint is not installed.
    """
    path = path or folder / "report.html"
    page = render_study_report(folder)
    content = page.encode("utf-8")
    if path.suffix.lower() == ".pdf":
        from securitynet.reports.pdf import to_pdf

        content = to_pdf(page)
    with atomic_write(path) as stream:
        stream.write(content)
    return path


def render_study_report(folder: Path) -> str:
    """The page as text; see `write_study_report`."""
    page: str = environment().get_template("study.html").render(page=study_page(folder), css=css(), version=__version__)
    return page


def study_page(folder: Path) -> StudyPage:
    """Everything that the page says."""
    subjects = list(StudyTargetStore(folder))
    trials = list(TrialStore(folder))
    if not subjects and not trials:
        raise ConfigurationError(
            f"There are no results of a study in {folder}.", hint="Run one: securitynet study run FILE --out FOLDER."
        )
    tidy = study_frames.from_study(folder, curves=True)
    shown, lacking = _figures(tidy)
    judged = findings.judge(claims.EVERY, tidy) if len(tidy) else []
    named = _names(subjects)
    columns, rows = _table(tidy[tidy["measure"] != study_frames.CURVE_MEASURE])
    status = inspect_study(locate_results(folder))
    text = _study_file(folder)
    study = _declared(text)
    return StudyPage(
        title=str(study.get("name") or folder.name),
        description=str(study.get("description") or ""),
        facts=_facts(subjects, trials, status),
        unfinished=_unfinished(trials, status),
        findings={status: [f for f in judged if f.status == status] for status in _STATUSES},
        shown=shown,
        lacking=lacking,
        columns=columns,
        rows=rows[:MOST_ROWS],
        omitted=max(len(rows) - MOST_ROWS, 0),
        galleries=list(_galleries(folder, trials, named)),
        failures=_failures(subjects, trials, named),
        skipped=_skipped(trials),
        checks=_disagreements(subjects),
        limits=_limits(subjects, trials),
        settings=text,
        environments=_environments(trials),
    )


def _figures(tidy: pandas.DataFrame) -> tuple[list[ShownFigure], list[tuple[Figure, str]]]:
    shown, lacking = [], []
    for figure in figures().values():
        try:
            drawn = figure.make(tidy)
        except MissingData as error:
            lacking.append((figure, "; ".join(error.lacking)))
            continue
        except SecurityNetError as error:
            lacking.append((figure, error.message))
            continue
        picture, width = None, 0
        if drawn.chart is not None:
            svg = render.inline(render.to_svg(drawn.chart), figure.name, title=figure.title, description=drawn.caption)
            picture = Markup(svg)  # made by Vega from escaped text
            box = re.search(r'viewBox="\S+ \S+ (\S+) ', svg)
            width = round(1.15 * float(box[1])) if box else 0
        table = drawn.data if drawn.chart is None else drawn.statistics
        shown_columns = [name for name in table.columns if not str(name).startswith("_")]
        columns = [str(name) for name in shown_columns if drawn.chart is None or table[name].notna().any()]
        rows = tuple(tuple(_cell(value) for value in row) for row in table[columns].itertuples(index=False))
        shown.append(
            ShownFigure(figure, picture, drawn.caption, width, tuple(name.replace("_", " ") for name in columns), rows)
        )
    return shown, lacking


def _table(tidy: pandas.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """All measurements, as text."""
    columns = (*_HOW, "measure", "value", "interval", "n")
    rows = []
    for row in tidy.to_dict("records"):
        measure = row["measure"] if pandas.isna(row["at"]) else f"{row['measure']} at {row['at']}"
        has_value = not pandas.isna(row["value"])
        interval = f"{row['low']:.4g} to {row['high']:.4g}" if has_value and not pandas.isna(row["low"]) else ""
        value = f"{row['value']:.4f}" if has_value else "not resolved"
        n = "" if pandas.isna(row["n"]) else int(row["n"])
        rows.append(tuple(_cell(cell) for cell in (*(row[name] for name in _HOW), measure, value, interval, n)))
    return columns, rows


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _galleries(
    folder: Path, trials: Sequence[TrialResult], named: dict[str, str]
) -> Iterator[tuple[str, ShownGallery]]:
    """Pictures of the first trials of each method that have any."""
    from securitynet.assessments.method_settings import REGISTRIES
    from securitynet.reports.galleries import shown

    store, count, seen = TrialStore(folder), 0, Counter[str]()
    for trial in trials:
        if trial.status != "ok" or count >= MOST_GALLERIES or seen[trial.spec.method] >= 2:
            continue
        try:
            method = REGISTRIES[trial.spec.kind].get(trial.spec.method)
        except SecurityNetError:  # of a plug-in that is not installed here
            continue
        arrays = store.load_arrays(trial) if _has_pictures(method.output) else None
        if arrays is None:
            continue
        for gallery in shown(method.output.from_arrays(arrays)):
            yield (
                f"{trial.spec.method} on {named.get(trial.spec.target.checksum, trial.spec.target.reference)}",
                gallery,
            )
            count += 1
        seen[trial.spec.method] += 1


def _has_pictures(output: type) -> bool:
    from securitynet.methods.base import Output

    return getattr(output, "galleries", None) is not Output.galleries


def _names(subjects: Sequence[StudyTargetRecord]) -> dict[str, str]:
    return {subject.means.target.checksum: subject.label for subject in subjects if subject.means}


def _unfinished(trials: Sequence[TrialResult], status: Status) -> str:
    """That more trials are to come, in a sentence; empty where a study is finished, or nothing tells what it plans."""
    if status.state in ("finished", "not running"):
        return ""
    state = {"killed": "was killed", "stopped": "was stopped", "stopping": "is being stopped"}
    there = f"{len(trials):,} of {max(status.total, len(trials)):,} trials are here"
    return (
        f"This study is not finished: it {state.get(status.state, 'still runs')}, and {there}. Everything on this page "
        "may change when the others are. `securitynet study run` goes on where it was."
    )


def _facts(
    subjects: Sequence[StudyTargetRecord], trials: Sequence[TrialResult], status: Status
) -> list[tuple[str, str]]:
    statuses = Counter(trial.status for trial in trials)
    opened = sum(subject.status == "ok" for subject in subjects)
    seconds = sum(sum(trial.seconds.values()) for trial in trials)
    finished = sorted(trial.finished for trial in trials)
    closed = len(subjects) - opened
    counts = [f"{count:,} {name}" for name, count in sorted(statuses.items(), key=str)]
    unopened = status.failed - statuses["failed"]  # they have no files of their own
    counts += [f"{unopened:,} failed with their targets"] if unopened > 0 and closed else []
    return [
        ("Targets", f"{opened:,}" + (f", and {closed:,} that could not be opened" if closed else "")),
        ("Trials", ", ".join(counts) or "none"),
        ("Methods", f"{len({trial.spec.method for trial in trials}):,}"),
        ("Images asked about", f"{sum(trial.queries.total for trial in trials):,}, repeats included"),
        ("Time in trials", words.duration(seconds)),
        ("Trials ended", _between(finished[0], finished[-1]) if finished else "nothing yet"),
    ]  # fmt: skip


def _between(first: str, last: str) -> str:
    """Two times in ISO format, as ``2026-01-01 10:20 to 10:45 UTC``."""
    start, end = first[:16].replace("T", " "), last[:16].replace("T", " ")
    if start == end:
        return f"{end} UTC"
    return f"{start} to {end[11:] if start[:10] == end[:10] else end} UTC"


def _failures(
    subjects: Sequence[StudyTargetRecord], trials: Sequence[TrialResult], named: dict[str, str]
) -> list[Failure]:
    found = [Failure("The target", s.label, s.reason or "", s.traceback) for s in subjects if s.status != "ok"]
    for trial in trials:
        if trial.status == "failed":
            on = named.get(trial.spec.target.checksum, trial.spec.target.reference)
            found.append(Failure(trial.spec.method, on, trial.reason or "", trial.traceback))
    return found


def _skipped(trials: Sequence[TrialResult]) -> list[tuple[str, str, int]]:
    counts = Counter((trial.spec.method, trial.reason or "") for trial in trials if trial.status == "skipped")
    return [(method, reason, count) for (method, reason), count in sorted(counts.items())]


def _limits(subjects: Sequence[StudyTargetRecord], trials: Sequence[TrialResult]) -> list[str]:
    """What a reader must keep in mind; each computed from the records."""
    said = []
    assumed = sum(subject.membership == "assumed" for subject in subjects)
    if assumed:
        said.append(
            f"Of {assumed:,} targets it is assumed, not known, who is a member: the dataset's own training part is "
            "taken for it."
        )
    seeds = {trial.spec.seed for trial in trials if trial.status == "ok"}
    if len(seeds) == 1:
        said.append("Each trial was run with one seed; intervals are over records, not over repetitions of an attack.")
    unresolved = sum(m.value is None for trial in trials for m in trial.measurements)
    if unresolved:
        said.append(f"{unresolved:,} measurements can't be resolved with so few records, and have no value.")
    failed = sum(trial.status == "failed" for trial in trials)
    if failed:
        said.append(f"{failed:,} trials failed; figures are without them.")
    versions = {trial.environment.get("securitynet") for trial in trials if trial.status == "ok"}
    if len(versions) > 1:
        said.append(f"Trials were made by several versions of securitynet: {', '.join(sorted(map(str, versions)))}.")
    said.append("Claims are tested on the models at hand, which are no sample of all models.")
    return said


def _disagreements(subjects: Sequence[StudyTargetRecord]) -> list[tuple[str, str]]:
    return [
        (subject.label, check.note or f"{check.what}: said {check.said}, found {check.found}")
        for subject in subjects
        for check in subject.checks
        if not check.agrees
    ]


def _environments(trials: Sequence[TrialResult]) -> list[tuple[str, str]]:
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.environment.items():
            values.setdefault(name, set()).add(value)
    return [(name, ", ".join(sorted(found))) for name, found in values.items()]


def _study_file(folder: Path) -> str:
    """The study file as its runner kept it; empty if it did not."""
    try:
        return (folder / "study.toml").read_text(encoding="utf-8")
    except OSError:
        return ""


def _declared(text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ConfigurationError:
        return {}
