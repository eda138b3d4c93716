"""`securitynet study`: plan, run, watch and export studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.options import configured
from securitynet.studies.study_run import StudyRunConfig, find_results

if TYPE_CHECKING:
    from securitynet.studies.study_status import Status

SOME_TRIALS_FAILED = 4
INTERRUPTED = 130

app = typer.Typer(help="Run many attacks on many models, resumably.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Results = Annotated[str, typer.Argument(help="Study file, or folder or URL of results.", show_default=False)]
Out = Annotated[str | None, typer.Option("--out", help="Folder or URL of the results of a study file.")]
Db = Annotated[str | None, typer.Option("--db", help="Database of the index. Default: beside the results.")]


@configured(StudyRunConfig, positional=("study",))
def run(config: StudyRunConfig, json: Json = False) -> None:
    """Run a study: every trial that is not there yet. Stopped or killed, it goes on where it was.

    Ctrl-C lets what runs be finished; a second one stops at once. Exit codes: 0 done, 1 an error, 4 some trials failed,
    130 stopped before the end.

    Example: securitynet study run studies/securitynet-membership-small.toml --workers 2
    """
    from securitynet.studies.study_run import run_study

    with _watch() as watch:
        status, place = run_study(config, on_status=watch, note=_note)
    if json:
        console.print_json({**status.to_json(), "results": place.root.name})
    else:
        show(status)
        console.stdout.print(f"Results: {place.root.name}", markup=False, soft_wrap=True)
    if status.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(SOME_TRIALS_FAILED if status.failed else 0)


app.command("run")(run)


@app.command()
def status(what: Results, out: Out = None, json: Json = False) -> None:
    """Tell how far a study is; works from any terminal, while it runs and afterwards."""
    from securitynet.studies.study_view import look

    found = look(find_results(what, out))
    if json:
        console.print_json(found.to_json())
    else:
        show(found)


def show(found: Status) -> None:
    """Print how far a study is."""
    from rich.table import Table

    from securitynet.studies.study_status import words_of

    console.stdout.print(f"[bold]{console.escape(found.name)}[/]: {found.state}")
    parts = [f"{found.ok:,} of {found.total:,} trials ok", f"{found.failed:,} failed", f"{found.skipped:,} skipped"]
    if found.waiting:
        parts.append(f"{found.waiting:,} to run")
    if found.other_version:
        parts.append(f"{found.other_version:,} made by another version (--refresh runs them again)")
    console.stdout.print(", ".join(parts))
    if found.subjects:
        subjects = found.subjects
        failed = f", {subjects['failed']} could not be opened" if subjects["failed"] else ""
        console.stdout.print(f"{subjects['opened']:,} of {subjects['total']:,} targets opened{failed}")
    if found.state in ("running", "stopping"):
        rate = f"{found.rate:.1f} trials a minute, " if found.rate else ""
        left = words_of(found.left)
        console.stdout.print(f"{words_of(found.elapsed)} so far, {rate}time left: {left}; {found.workers} workers")
        table = Table(box=None, pad_edge=False, show_header=False)
        for item in found.running:
            progress = f"{item['what']} {item['done']:,} of {item['total']:,}" if item["total"] else ""
            table.add_row(console.escape(item["task"]), words_of(item["seconds"]), console.escape(progress))
        console.stdout.print(table)
    for name, reason in found.failures:
        console.stdout.print(f"failed: {name}: {reason}", markup=False, soft_wrap=True, style="red")


@contextmanager
def _watch() -> Iterator[Callable[[Status], None]]:
    """A progress display on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from securitynet.studies.study_status import words_of

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console.stderr, transient=True) as display:
        trials = display.add_task("trials", total=None, words="")
        workers: dict[int, TaskID] = {}

        def update(status: Status) -> None:
            done = status.ok + status.failed
            left = f"{words_of(status.left)} left" if status.left is not None else ""
            failed = f"[red]{status.failed} failed[/] " if status.failed else ""
            display.update(trials, completed=done, total=done + status.waiting, words=failed + left)
            for number in range(max(len(status.running), len(workers))):
                if number not in workers:
                    workers[number] = display.add_task("", total=None, words="")
                item = status.running[number] if number < len(status.running) else None
                display.update(
                    workers[number],
                    description=console.escape(item["task"]) if item else "",
                    completed=item["done"] if item else 0,
                    total=(item["total"] or None) if item else None,
                    words=console.escape(item["what"]) if item else "",
                    visible=item is not None,
                )

        yield update


def _note(text: str) -> None:
    console.stderr.print(text, markup=False, soft_wrap=True)
