"""`securitynet study`: plan, run, watch and export studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.options import add_config_options
from securitynet.studies.execution.run import StudyRunConfig, find_results

if TYPE_CHECKING:
    from securitynet.studies.execution.status import Status

SOME_TRIALS_FAILED = 4
INTERRUPTED = 130

app = typer.Typer(help="Plan, run, watch and export studies of many attacks on many models.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Results = Annotated[str, typer.Argument(help="Study file, or folder or URL of results.", show_default=False)]
Out = Annotated[str | None, typer.Option("--out", help="Folder or URL of the results of a study file.")]
Db = Annotated[str | None, typer.Option("--db", help="Database of the index. Default: beside the results.")]


@add_config_options(StudyRunConfig, positional=("study",))
def run(config: StudyRunConfig, json: Json = False) -> None:
    """Run the trials of a study that are not finished yet. A run that was stopped continues where it left off.

    Ctrl-C lets running trials finish; a second Ctrl-C stops at once. Exit codes: 0 done, 1 an error, 4 some trials
    failed, 130 stopped before the end.

    Example: securitynet study run studies/securitynet-membership-small.toml --workers 2
    """
    from securitynet.studies.execution.run import run_study

    with _watch() as watch:
        status, place = run_study(config, on_status=watch, note=_note)
    if json:
        console.print_json({**status.to_json(), "results": place.root.name})
    else:
        show_run(status)
        console.stdout.print(f"Results: {place.root.name}", markup=False, soft_wrap=True)
    if status.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(SOME_TRIALS_FAILED if status.failed else 0)


app.command("run")(run)


@app.command()
def status(what: Results, out: Out = None, json: Json = False) -> None:
    """Show the progress of a study, from any terminal, while it is running and afterwards."""
    from securitynet.studies.execution.inspect import inspect_study

    progress = inspect_study(find_results(what, out))
    if json:
        console.print_json(progress.to_json())
    else:
        show_run(progress)


def show_run(status: Status) -> None:
    """Print the progress of a study."""
    from rich.table import Table

    from securitynet.studies.execution.status import describe_duration

    console.stdout.print(f"[bold]{console.escape(status.name)}[/]: {status.state}")
    parts = [f"{status.ok:,} of {status.total:,} trials ok", f"{status.failed:,} failed", f"{status.skipped:,} skipped"]
    if status.waiting:
        parts.append(f"{status.waiting:,} to run")
    if status.other_version:
        parts.append(f"{status.other_version:,} made by another version (--refresh runs them again)")
    console.stdout.print(", ".join(parts))
    if status.subjects:
        targets = status.subjects
        failed = f", {targets['failed']} could not be opened" if targets["failed"] else ""
        console.stdout.print(f"{targets['opened']:,} of {targets['total']:,} targets opened{failed}")
    if status.state in ("running", "stopping"):
        rate = f"{status.rate:.1f} trials a minute, " if status.rate else ""
        elapsed, left = describe_duration(status.elapsed), describe_duration(status.left)
        console.stdout.print(f"{elapsed} so far, {rate}time left: {left}; {status.workers} workers")
        table = Table(box=None, pad_edge=False, show_header=False)
        for item in status.running:
            progress = f"{item['what']} {item['done']:,} of {item['total']:,}" if item["total"] else ""
            table.add_row(console.escape(item["task"]), describe_duration(item["seconds"]), console.escape(progress))
        console.stdout.print(table)
    for name, reason in status.failures:
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
        bool, typer.Option("--calibrate", help="Run each method on a few records to estimate time and memory.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Plan `study run --retry-failed`.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Plan `study run --refresh`.")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Cache folder. Default: $SECURITYNET_CACHE or the user's cache folder.")
    ] = None,
    trust: Annotated[
        str, typer.Option(help="Entries and references that you trust, as for `study run`.", show_default=False)
    ] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers to estimate the time for.")] = None,
    json: Json = False,
) -> None:
    """Show what a study would run, how many trials are finished, and which would be skipped and why. Writes nothing.

    Example: securitynet study plan studies/ml-doctor-small.toml --calibrate
    """
    from securitynet.studies.execution.cost import estimate_cost
    from securitynet.studies.execution.preview import preview_study

    with console.show_progress() as progress:
        preview = preview_study(
            file, out=out, cache=cache, retry_failed=retry_failed, refresh=refresh, trust=trust.split(",")
        )
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
    file: Annotated[Path, typer.Argument(help="File to write: .parquet, .csv or .jsonl.", show_default=False)],
    out: Out = None,
    db: Db = None,
) -> None:
    """Write all results as one tidy table: one row per measured value, with its target, method, settings and cost."""
    from securitynet.assessments.known_methods import find_default_settings
    from securitynet.errors import ConfigurationError
    from securitynet.results.export import check_table_name, write_table
    from securitynet.studies.execution.inspect import open_index

    check_table_name(file)
    with open_index(find_results(what, out, db), _note) as index:
        rows, count = write_table(index, file, find_default_settings)
    if not rows:
        raise ConfigurationError(f"There are no results in {what} that can be read.")
    failed = f", {count:,} of them for failed trials" if count else ""
    console.stderr.print(f"{rows:,} rows written to {file}{failed}", markup=False, soft_wrap=True)


@app.command()
def reindex(what: Results, out: Out = None, db: Db = None) -> None:
    """Rebuild the index from the trial files. With --db URL, the index can be a PostgreSQL database."""
    from securitynet.studies.execution.inspect import rebuild_index as rebuild

    refreshed = rebuild(find_results(what, out, db), _note)
    console.stderr.print(f"{refreshed.read:,} files indexed, {len(refreshed.damaged)} can't be read", markup=False)
    raise typer.Exit(1 if refreshed.damaged else 0)


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(help="Folders or URLs of results.", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="Folder or URL to merge into.", show_default=False)],
    redact: Annotated[
        bool,
        typer.Option(help="For strangers: leave out raw outputs, images, paths and names of users. All values stay."),
    ] = False,
) -> None:
    """Merge the results of several studies, or of parts of one study that ran in different places."""
    from securitynet.studies.execution.inspect import merge_folders as run_merge

    merged = run_merge(sources, out, _note, redact=redact)
    console.stderr.print(
        f"{merged.trials:,} trials and {merged.targets:,} targets copied; {merged.present:,} files were there already",
        markup=False,
    )
    for path, why in merged.damaged.items():
        console.stderr.print(f"left out: {path}: {why}", markup=False, soft_wrap=True)
    for trial in merged.conflicts:
        console.stderr.print(
            f"two sources differ on trial {trial}; the result of the first is used", markup=False, soft_wrap=True
        )
    raise typer.Exit(1 if merged.damaged or merged.conflicts else 0)


@app.command()
def publish(
    what: Results,
    out: Out = None,
    catalog: Annotated[
        str | None, typer.Option(help="Database of the catalog. Default: the one in the user's data folder.")
    ] = None,
    db: Db = None,
) -> None:
    """Add measured values of catalog models to the catalog, each with the id of its trial."""
    import securitynet.catalog
    from securitynet.studies.execution.inspect import open_index
    from securitynet.studies.execution.publish import publish as run_publish

    with open_index(find_results(what, out, db), _note) as index, securitynet.catalog.open(catalog) as opened:
        published = run_publish(index, opened)
    console.stderr.print(
        f"{published.values:,} new values of {published.entries:,} entries; "
        f"{published.without:,} targets are not in the catalog",
        markup=False,
    )
    for label, reason in published.refused.items():
        console.stderr.print(f"not published: {label}: {reason}", markup=False, soft_wrap=True)
    if published.refused:
        raise typer.Exit(1)
