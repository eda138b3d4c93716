"""`securitynet study`: plan, run, watch and export studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.options import configured
from securitynet.studies.execution.run import StudyRunConfig, find_results

if TYPE_CHECKING:
    from securitynet.studies.execution.status import Status

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
    from securitynet.studies.execution.run import run_study

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
    from securitynet.studies.execution.inspect import inspect_study

    found = inspect_study(find_results(what, out))
    if json:
        console.print_json(found.to_json())
    else:
        show(found)


def show(found: Status) -> None:
    """Print how far a study is."""
    from rich.table import Table

    from securitynet.studies.execution.status import describe_duration

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
        elapsed, left = describe_duration(found.elapsed), describe_duration(found.left)
        console.stdout.print(f"{elapsed} so far, {rate}time left: {left}; {found.workers} workers")
        table = Table(box=None, pad_edge=False, show_header=False)
        for item in found.running:
            progress = f"{item['what']} {item['done']:,} of {item['total']:,}" if item["total"] else ""
            table.add_row(console.escape(item["task"]), describe_duration(item["seconds"]), console.escape(progress))
        console.stdout.print(table)
    for name, reason in found.failures:
        console.stdout.print(f"failed: {name}: {reason}", markup=False, soft_wrap=True, style="red")


@contextmanager
def _watch() -> Iterator[Callable[[Status], None]]:
    """A progress display on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from securitynet.studies.execution.status import describe_duration

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console.stderr, transient=True) as display:
        trials = display.add_task("trials", total=None, words="")
        workers: dict[int, TaskID] = {}

        def update(status: Status) -> None:
            done = status.ok + status.failed
            left = f"{describe_duration(status.left)} left" if status.left is not None else ""
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


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="Study file (TOML).", show_default=False)],
    out: Out = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run each method on a few records, to estimate time and memory.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="As `study run` would be called.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="As `study run` would be called.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for what can be recomputed ($SECURITYNET_CACHE).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="For how many workers to estimate.")] = None,
    json: Json = False,
) -> None:
    """Tell what a study would run, how much of it is there, and what will be skipped and why. Nothing is written.

    Example: securitynet study plan studies/ml-doctor-small.toml --calibrate
    """
    from securitynet.studies.execution.cost import estimate_cost
    from securitynet.studies.execution.preview import preview_study

    with console.progress_bar() as progress:
        preview = preview_study(file, out=out, cache=cache, retry_failed=retry_failed, refresh=refresh)
        cost = estimate_cost(preview, workers=workers, report_progress=progress, note=_note) if calibrate else None
    if json:
        console.print_json({**preview.to_json(), "estimate": cost.to_json() if cost else None})
        return
    for line in preview.lines():
        console.stdout.print(line, markup=False, soft_wrap=True)
    for line in cost.lines() if cost else ():
        console.stdout.print(line, markup=False, soft_wrap=True)


@app.command()
def export(
    what: Results,
    file: Annotated[Path, typer.Argument(help="Where to: .parquet, .csv or .jsonl.", show_default=False)],
    out: Out = None,
    db: Db = None,
) -> None:
    """Write all results as one tidy table: a row a measured value, with its target, method, settings and cost."""
    from securitynet.assessments.method_settings import default_settings
    from securitynet.results.export import to_frame, write_table
    from securitynet.studies.execution.inspect import open_index

    with open_index(find_results(what, out, db), _note) as index:
        frame = to_frame(index, default_settings)
    write_table(frame, file)
    lost = int((frame["status"] == "failed").sum())
    failed = f", {lost:,} of them of trials that failed" if lost else ""
    console.stderr.print(f"{len(frame):,} rows written to {file}{failed}", markup=False, soft_wrap=True)


@app.command()
def reindex(what: Results, out: Out = None, db: Db = None) -> None:
    """Rebuild the index from the trial files, which are the truth. With --db URL also into PostgreSQL."""
    from securitynet.studies.execution.inspect import reindex as rebuild

    found = rebuild(find_results(what, out, db), _note)
    console.stderr.print(f"{found.read:,} files indexed, {len(found.damaged)} can't be read", markup=False)
    raise typer.Exit(1 if found.damaged else 0)


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(help="Folders or URLs of results.", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="Folder or URL to merge into.", show_default=False)],
) -> None:
    """Merge the results of several studies, or of parts of one that ran in different places."""
    from securitynet.studies.execution.inspect import merge as run_merge

    found = run_merge(sources, out, _note)
    console.stderr.print(
        f"{found.trials:,} trials and {found.subjects:,} targets taken over, {found.present:,} were there", markup=False
    )
    for path, why in found.damaged.items():
        console.stderr.print(f"left out: {path}: {why}", markup=False, soft_wrap=True)
    for trial in found.conflicts:
        console.stderr.print(f"two sources differ on trial {trial}; the first is kept", markup=False, soft_wrap=True)
    raise typer.Exit(1 if found.damaged or found.conflicts else 0)


@app.command()
def publish(
    what: Results,
    out: Out = None,
    catalog: Annotated[str | None, typer.Option(help="Database of the catalog. Default: the user's own.")] = None,
    db: Db = None,
) -> None:
    """Record what was measured on models of the catalog there, each value with the trial it comes from."""
    import securitynet.catalog
    from securitynet.studies.execution.inspect import open_index
    from securitynet.studies.execution.publish import publish as run_publish

    with open_index(find_results(what, out, db), _note) as index, securitynet.catalog.open(catalog) as opened:
        found = run_publish(index, opened)
    console.stderr.print(
        f"{found.values:,} new values of {found.entries:,} entries; {found.without:,} targets are no entries",
        markup=False,
    )
