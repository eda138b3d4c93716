"""`securitynet assess`: one model, all applicable attacks, one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.assessments.config import OPTION_GROUPS, AssessConfig
from securitynet.cli import console
from securitynet.cli.options import add_config_options
from securitynet.cli.policy import POLICY_NOT_MET, show_outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from securitynet.records import Measurement
    from securitynet.results.document import ResultDocument, TrialSummary

SOME_TRIALS_FAILED = 4
INTERRUPTED = 130


@add_config_options(AssessConfig, positional=("model",), groups=OPTION_GROUPS)
def assess(
    config: AssessConfig,
    json: Annotated[bool, typer.Option("--json", help="Print result.json to stdout.")] = False,
) -> None:
    """Assess how vulnerable one model is to inference attacks, and which training records are most exposed.

    Writes report.html, result.json and one file per trial. A run that was stopped continues where it left off.

    Example: securitynet assess arch:cifar-resnet20 --weights resnet20.th --dataset cifar10 --out report

    Exit codes: 0 done, 1 something is wrong with the input, 2 usage, 3 the policy is not met, 4 some trials failed.
    """
    from securitynet.api import assess as run
    from securitynet.memory import keep_freed_memory

    keep_freed_memory()
    try:
        with console.show_progress() as progress:
            outcome = run(config, progress=progress)
    except KeyboardInterrupt:
        console.stderr.print(describe_interruption(config.out), soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None
    document = outcome.document
    if json:
        console.print_json(document.to_json())
    else:
        show_result(document, config.out)
        console.stdout.print(f"\nReport: {outcome.report}", soft_wrap=True, markup=False)
    raise typer.Exit(compute_exit_code(document))


def describe_interruption(out: Path | None) -> str:
    """Describe what an interrupted assessment leaves on the disk."""
    finished = len(list(out.glob("trials/*/*.json"))) if out is not None else 0
    trials = f"{finished} finished {'trial is' if finished == 1 else 'trials are'} kept in {out}" if finished else ""
    kept = trials or "finished trials are kept"
    return f"interrupted; {kept}, and outputs of the model in the cache; the same command continues from there"


def compute_exit_code(document: ResultDocument) -> int:
    """The exit code of the command for a result."""
    if document.policy is not None and not document.policy.met:
        return POLICY_NOT_MET
    return SOME_TRIALS_FAILED if any(trial.status == "failed" for trial in document.trials) else 0


def show_result(document: ResultDocument, out: Path | None = None) -> None:
    """Print the first screen of the report on stdout, then what failed or was skipped; with ``-v`` more numbers.

    Args:
        document: The result.
        out: Its folder, for commands that go on with it.
    """
    from securitynet.cli.first_screen import show_first_screen

    for note in document.target.notes:
        if note.startswith("WARNING"):
            console.stdout.print(f"[bold yellow]{console.escape(note)}[/]")
        elif console.is_verbose():
            console.stdout.print(f"[dim]{console.escape(note)}[/]")
    show_first_screen(document, out)
    if console.is_verbose():
        show_details(document)
    else:
        show_warnings(document)
    for trial in document.trials:
        if trial.status == "failed":
            console.stdout.print(f"[red]failed[/] {trial.name}: {console.escape(trial.reason or '')}")
        elif trial.status == "skipped":
            console.stdout.print(f"[yellow]skipped[/] {trial.name}: {console.escape(trial.reason or '')}")
    if document.remedies is not None:
        show_tried_defenses(document)
    if document.comparison is not None:
        from securitynet.cli.compare import show_comparison

        console.stdout.print()
        show_comparison(document.comparison)
    if document.policy is not None:
        show_outcome(document.policy)


def show_details(document: ResultDocument) -> None:
    """Print the target's accuracy and one line per attack on stdout; the report and ``result.json`` have the rest."""
    from rich.table import Table

    measured = {m.name: m for m in document.measurements}
    accuracies = Table(box=None, pad_edge=False, show_header=False)
    for name in ("target.train_accuracy", "target.test_accuracy", "target.overfitting"):
        accuracies.add_row(name, _interval(measured[name]))
    console.stdout.print()
    console.stdout.print(accuracies)
    fpr = find_lowest_resolved_rate(document.measurements)
    table = Table(box=None, pad_edge=False, header_style="dim")
    differ = document.controls is not None and document.controls.blind is not None and document.controls.blind.differ
    headings = {"AUC": "auc", "without the model": "blind-auc"}
    headings |= {"on matched records": "matched-auc"} if differ else {}
    headings |= {f"TPR at FPR {fpr}": f"tpr@fpr={fpr}"} if fpr else {}
    for heading in ("attack", *headings):
        table.add_column(heading, no_wrap=True)
    membership = [trial for trial in document.trials if trial.name.startswith("membership.")]
    for trial in membership:
        if trial.status == "ok":
            figures = [measured.get(f"{trial.name}.{measure}") for measure in headings.values()]
            table.add_row(trial.name, *(_interval(m) if m else "" for m in figures))
    if table.row_count:
        console.stdout.print(table)
        show_controls(document)
    show_others(document, [trial for trial in document.trials if trial not in membership])


def show_warnings(document: ResultDocument) -> None:
    """Print loudly where members and non-members differ without the model, or many are copies."""
    from securitynet.reports.families._membership_controls import describe_difference

    for sentence in describe_difference(document):
        console.stdout.print(f"[bold yellow]{console.escape(sentence)}[/]")


def show_controls(document: ResultDocument) -> None:
    """Print what the controls of membership inference show; loudly where the groups differ without the model."""
    from securitynet.reports.controls import find_controls
    from securitynet.reports.families._membership_controls import describe_difference

    controls = find_controls(document)
    if controls is None:
        return
    loud = describe_difference(document)
    for sentence in loud:
        console.stdout.print(f"[bold yellow]{console.escape(sentence)}[/]")
    for sentence in controls.sentences[1:] if controls.differ else controls.sentences:
        if sentence not in loud:
            console.stdout.print(f"[dim]{console.escape(sentence)}[/]")


def show_others(document: ResultDocument, trials: Iterable[TrialSummary]) -> None:
    """Print the headline measurements of trials that are not membership attacks."""
    from rich.table import Table

    measured = {m.name: m for m in document.measurements}
    table = Table(box=None, pad_edge=False, show_header=False)
    for trial in trials:
        if trial.status == "ok":
            for number, name in enumerate(trial.headline or (f"{trial.name}.",)):
                value = _interval_or_verdict(measured[name]) if name in measured else ""
                table.add_row("" if number else trial.name, name.removeprefix(f"{trial.name}."), value)
    if table.row_count:
        console.stdout.print(table)


def find_lowest_resolved_rate(measurements: Iterable[Measurement]) -> str | None:
    """The lowest false-positive rate at which a TPR has a value, as measurements' names write it."""
    rates = [m.name.rpartition("tpr@fpr=")[2] for m in measurements if "tpr@fpr=" in m.name and m.value is not None]
    return min(rates, key=float, default=None)


def _interval_or_verdict(measurement: Measurement) -> str:
    """A number with its interval; of a verdict, which is a rank, the sentence."""
    if measurement.name.endswith(".verdict") and measurement.note:
        return console.escape(measurement.note)
    if measurement.name.endswith("-label") and measurement.value is not None:
        return f"{measurement.value:.0f}"
    return _interval(measurement)


def _interval(measurement: Measurement) -> str:
    if measurement.value is None:
        return "–"
    return f"{measurement.value:.4f} [dim]({measurement.low:.4f} to {measurement.high:.4f})[/]"


def show_tried_defenses(document: ResultDocument) -> None:
    """Print the defenses that were tried: one row each, with the strongest attack against it and the outcome."""
    from rich.table import Table

    from securitynet.reports.what_helps import describe_tried_defenses

    section = describe_tried_defenses(document)
    assert section is not None  # the caller has checked that the document has some
    table = Table(box=None, pad_edge=False, header_style="dim")
    rates = (f"TPR at {section.fpr} FPR on canaries", "on exposed members") if section.fpr else ()
    for heading in ("defense", "AUC of the strongest attack", *rates, "accuracy", "result"):
        table.add_column(heading)
    for row in section.rows:
        shown = (row.auc, *((row.canaries, row.exposed) if section.fpr else ()), row.accuracy)
        numbers = [f"{n.value} [dim]({n.interval})[/]" if n else "–" for n in shown]
        table.add_row(console.escape(row.name), *numbers, console.escape(row.outcome))
    console.stdout.print()
    console.stdout.print(table)
    for sentence in (*section.sentences, *section.notes):
        console.stdout.print(sentence, markup=False)
