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
from securitynet.analysis.figures.declared import list_figures
from securitynet.analysis.findings import ClaimFinding
from securitynet.analysis.frames import keep
from securitynet.analysis.papers.compare import Compared
from securitynet.analysis.papers.every import compare_every
from securitynet.analysis.picture_rows import load_galleries
from securitynet.assessments.known_methods import has_pictures
from securitynet.errors import ConfigurationError, RefusedFile, SecurityNetError
from securitynet.files import parse_toml, write_atomically
from securitynet.records import TrialResult
from securitynet.reports import words
from securitynet.reports.build import load_templates, read_css
from securitynet.reports.study_trials import TrialsSummary
from securitynet.results.excluded_entries import group_by_reason, read_excluded
from securitynet.results.root import open_root
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore
from securitynet.studies.execution.inspect import inspect_study
from securitynet.studies.execution.run import locate_results
from securitynet.studies.execution.status import Status
from securitynet.untrusted import MAX_SETTINGS, read_bytes
from securitynet.version import __version__

if TYPE_CHECKING:
    from securitynet.reports.galleries import ShownGallery

MOST_ROWS = 3000
"""Rows of the table of measurements; ``study export`` writes all."""

MOST_GALLERIES = 12

_HOW = ("model", "dataset", "defense", "attack", "method", "access", "auxiliary")
NUMBERS = ("", "what", "paper", "here", "n", "how", "where")
"""Columns of the table of the papers' numbers."""


@dataclass(frozen=True)
class ShownFigure:
    """A figure or a table of a paper, drawn from the study.

    Attributes:
        figure: Its declaration.
        picture: Inline SVG; None for a table.
        caption: States n, intervals and tests.
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
    """A trial or a target without a result.

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
    """The content of the page.

    Attributes:
        title: Name of the study.
        description: From the study file.
        overview: (what, value) for the table at the top.
        findings: Status -> findings with that status.
        numbers: Numbers that the papers print, with this study's: a row of `NUMBERS` each.
        shown: Figures and tables that were drawn.
        lacking: Figures that were not drawn, with the reason.
        columns: Names of the columns of the table of measurements.
        rows: Its rows, at most `MOST_ROWS`.
        omitted: Number of further rows.
        galleries: (trial, pictures).
        failures: Trials and targets that failed.
        skipped: (method, reason, number of trials).
        checks: (target, what differs) for targets that failed a check.
        limits: What a reader must keep in mind.
        settings: Text of the study file.
        environments: (package or machine property, values).
        unfinished: A warning that the study is not finished; empty if it is.
        excluded: (reason, remedy, keys) of entries of the catalog that the study asks for and cannot use.
    """

    title: str
    description: str
    overview: list[tuple[str, str]]
    findings: dict[str, list[ClaimFinding]]
    numbers: list[tuple[str, ...]]
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
    excluded: list[tuple[str, str, list[str]]] = field(default_factory=list)


def write_study_report(folder: Path, path: Path | None = None) -> Path:
    """Write the report on the results in a folder; the file is whole or absent.

    Args:
        folder: Results of ``study run``.
        path: Where to write; by default ``report.html`` in the folder. A name that ends in ``.pdf`` makes a PDF.

    Raises:
        ConfigurationError: If there are no results.
        MissingExtra: If a PDF is requested and WeasyPrint is not installed.
    """
    path = path or folder / "report.html"
    page = render_study_report(folder)
    content = page.encode("utf-8")
    if path.suffix.lower() == ".pdf":
        from securitynet.reports.pdf import print_pdf

        content = print_pdf(page)
    with write_atomically(path) as stream:
        stream.write(content)
    return path


def render_study_report(folder: Path) -> str:
    """The report on the results in a folder, as HTML. Raises `ConfigurationError` if there are no results."""
    page: str = (
        load_templates()
        .get_template("study.html")
        .render(page=make_study_page(folder), number_columns=NUMBERS, css=read_css(), version=__version__)
    )
    return page


def make_study_page(folder: Path) -> StudyPage:
    """The content of the page. Raises `ConfigurationError` if there are no results."""
    targets = list(StudyTargetStore(folder))
    trials = TrialsSummary()
    tidy = study_frames.from_study(folder, curves=True, observe=trials.observe)
    if not targets and not trials.count:
        raise ConfigurationError(
            f"There are no results of a study in {folder}.", hint="Run one: securitynet study run FILE --out FOLDER."
        )
    shown, lacking = _figures(tidy)
    compared = compare_every(tidy) if len(tidy) else []
    judged = findings.judge_claims(claims.EVERY, tidy, compared=compared) if len(tidy) else []
    named = _names(targets)
    measured = keep(tidy, tidy["measure"] != study_frames.CURVE_MEASURE)
    columns, rows = _table(measured.head(MOST_ROWS))
    status = inspect_study(locate_results(folder), trials.statuses)
    text = _study_file(folder)
    study = _declared(text)
    excluded = group_by_reason(read_excluded(open_root(folder)))
    return StudyPage(
        title=str(study.get("name") or folder.name),
        description=str(study.get("description") or ""),
        overview=_overview(targets, trials, status, sum(len(labels) for _, _, labels in excluded)),
        excluded=excluded,
        unfinished=_unfinished(trials, status),
        findings={status: [f for f in judged if f.status == status] for status in findings.STATUSES},
        numbers=[_number(item) for item in compared],
        shown=shown,
        lacking=lacking,
        columns=columns,
        rows=rows,
        omitted=max(len(measured) - MOST_ROWS, 0),
        galleries=list(_galleries(folder, trials.pictured, named)),
        failures=_failures(targets, trials.failed, named),
        skipped=[(*what, count) for what, count in sorted(trials.skipped.items())],
        checks=_disagreements(targets),
        limits=_limits(targets, trials),
        settings=text,
        environments=[(name, ", ".join(sorted(values))) for name, values in trials.environments.items()],
    )


def _figures(tidy: pandas.DataFrame) -> tuple[list[ShownFigure], list[tuple[Figure, str]]]:
    shown, lacking = [], []
    for figure in list_figures().values():
        if figure.options.get("pictures"):
            continue  # the report shows the pictures themselves
        drawn = None  # its data may be a large part of the frame
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
            svg = render.inline_svg(
                render.to_svg(drawn.chart), figure.name, title=figure.title, description=drawn.caption
            )
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


def _number(item: Compared) -> tuple[str, ...]:
    """A row of the table of the papers' numbers."""
    printed = item.printed
    return (item.agreement, printed.what, item.paper_text, item.here_text, f"{item.here.n:,}", printed.estimand,
            f"{printed.paper}, {printed.where}")  # fmt: skip


def _table(tidy: pandas.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Measurements, as text."""
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
    """Pictures of the first trials of each method that has any."""
    from securitynet.reports.galleries import show_galleries

    store, count, seen = TrialStore(folder), 0, Counter[str]()
    for trial in trials:
        if trial.status != "ok" or count >= MOST_GALLERIES or seen[trial.spec.method] >= 2:
            continue
        if not has_pictures(trial.spec.kind, trial.spec.method):
            continue
        shown = show_galleries(load_galleries(trial, store))
        for gallery in shown:
            yield (
                f"{trial.spec.method} on {named.get(trial.spec.target.checksum, trial.spec.target.reference)}",
                gallery,
            )
            count += 1
        seen[trial.spec.method] += bool(shown)


def _names(targets: Sequence[StudyTargetRecord]) -> dict[str, str]:
    return {target.means.target.checksum: target.label for target in targets if target.means}


def _unfinished(trials: TrialsSummary, status: Status) -> str:
    """A warning that trials are outstanding; empty if the study is finished, or its plan is unknown."""
    if status.state in ("finished", "not running"):
        return ""
    state = {"killed": "was killed", "stopped": "was stopped", "stopping": "is being stopped"}
    there = f"{trials.count:,} of {max(status.total, trials.count):,} trials are here"
    return (
        f"This study is not finished: it {state.get(status.state, 'is still running')}, and {there}. Everything on "
        "this page may change once the others have run. `securitynet study run` continues it."
    )


def _overview(
    targets: Sequence[StudyTargetRecord], trials: TrialsSummary, status: Status, excluded: int
) -> list[tuple[str, str]]:
    opened = sum(target.status == "ok" for target in targets)
    closed = len(targets) - opened
    counts = [f"{count:,} {name}" for name, count in sorted(trials.statuses.items(), key=str)]
    unopened = status.failed - trials.statuses["failed"]  # they have no files of their own
    counts += [f"{unopened:,} failed with their targets"] if unopened > 0 and closed else []
    return [
        ("Targets", f"{opened:,}" + (f", and {closed:,} that could not be opened" if closed else "")),
        *([("Entries of the catalog left out", f"{excluded:,}")] if excluded else []),
        ("Trials", ", ".join(counts) or "none"),
        ("Methods", f"{len(trials.methods):,}"),
        ("Images queried", f"{trials.queries:,}, repeats included"),
        ("Time in trials", words.write_duration(trials.seconds)),
        ("Trials ended", _between(trials.first, trials.last) if trials.count else "nothing yet"),
    ]  # fmt: skip


def _between(first: str, last: str) -> str:
    """Two times in ISO format, as ``2026-01-01 10:20 to 10:45 UTC``."""
    start, end = first[:16].replace("T", " "), last[:16].replace("T", " ")
    if start == end:
        return f"{end} UTC"
    return f"{start} to {end[11:] if start[:10] == end[:10] else end} UTC"


def _failures(
    targets: Sequence[StudyTargetRecord], failed: Sequence[TrialResult], named: dict[str, str]
) -> list[Failure]:
    failures = [Failure("The target", s.label, s.reason or "", s.traceback) for s in targets if s.status != "ok"]
    for trial in failed:
        on = named.get(trial.spec.target.checksum, trial.spec.target.reference)
        failures.append(Failure(trial.spec.method, on, trial.reason or "", trial.traceback))
    return failures


def _limits(targets: Sequence[StudyTargetRecord], trials: TrialsSummary) -> list[str]:
    """What a reader must keep in mind; each computed from the records."""
    limits = []
    assumed = sum(target.membership == "assumed" for target in targets)
    if assumed:
        limits.append(
            f"For {assumed:,} targets membership is assumed, not known: the members are taken to be the dataset's own "
            "training part."
        )
    if len(trials.seeds) == 1:
        limits.append(
            "Each trial was run with one seed; intervals cover the choice of records, not repetitions of an attack."
        )
    if trials.unresolved:
        limits.append(f"{trials.unresolved:,} measurements can't be resolved with so few records, and have no value.")
    failed = trials.statuses["failed"]
    if failed:
        limits.append(f"{failed:,} trials failed and are missing from the figures.")
    if len(trials.versions) > 1:
        versions = ", ".join(sorted(map(str, trials.versions)))
        limits.append(f"Trials were made by several versions of securitynet: {versions}.")
    limits.append("Claims are tested on the models of this study, which are not a sample of all models.")
    return limits


def _disagreements(targets: Sequence[StudyTargetRecord]) -> list[tuple[str, str]]:
    return [
        (target.label, check.note or f"{check.what}: expected {check.said}, measured {check.found}")
        for target in targets
        for check in target.checks
        if not check.agrees
    ]


def _study_file(folder: Path) -> str:
    """The copy of the study file in the results folder; empty if there is none."""
    try:
        return read_bytes(folder / "study.toml", MAX_SETTINGS).decode("utf-8")
    except (OSError, ValueError, RefusedFile):
        return ""


def _declared(text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ConfigurationError:
        return {}
