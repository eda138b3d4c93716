"""`securitynet compare`: two results, measurement by measurement and record by record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.policy import POLICY_NOT_MET, show_outcome
from securitynet.files import write_atomically

if TYPE_CHECKING:
    from securitynet.results.comparison import ResultComparison

MOST_ROWS = 20


def compare(
    old: Annotated[Path, typer.Argument(help="Folder of the earlier result, or its result.json.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Folder of the later result, or its result.json.", show_default=False)],
    policy: Annotated[
        Path | None, typer.Option(help="TOML file with bounds on the later result, and on rise and fall.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for a comment on a pull request, as Markdown.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON to stdout.")] = False,
) -> None:
    """Compare two results: two versions of a model, or a model before and after quantisation or fine-tuning.

    Differences have intervals, paired by record where both results scored the same images. Nothing is computed again.

    Example: securitynet compare float/ int8/ --policy policy.toml --markdown comment.md

    Exit codes: 0 done, 1 something is wrong with the input, 3 the policy is not met.
    """
    from securitynet.assessments.comparison import compare_results, read_result
    from securitynet.assessments.policy import judge_bounds, read_policy
    from securitynet.reports.changes import write_markdown

    bounds = read_policy(policy) if policy is not None else None
    later = read_result(new)
    comparison = compare_results(read_result(old), later)
    outcome = judge_bounds(bounds, later.document.measurements, comparison) if bounds is not None else None
    if markdown is not None:
        with write_atomically(markdown) as stream:
            stream.write(write_markdown(comparison, outcome).encode("utf-8"))
    if json:
        policy_part = outcome.model_dump(mode="json") if outcome is not None else None
        console.print_json({**comparison.model_dump(mode="json"), "policy": policy_part})
    else:
        show_comparison(comparison)
        if outcome is not None:
            show_outcome(outcome)
    raise typer.Exit(POLICY_NOT_MET if outcome is not None and not outcome.met else 0)


def show_comparison(comparison: ResultComparison) -> None:
    """Print what changed, then the newly exposed members; with ``-v`` all measurements."""
    from rich.table import Table

    from securitynet.reports import changes

    console.stdout.print(
        f"[bold]{console.escape(comparison.new_model)}[/] against {console.escape(comparison.old_model)}",
        soft_wrap=True,
    )
    for sentence in changes.describe_comparison(comparison):
        console.stdout.print(sentence, markup=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("measurement", "before", "now", "change", ""):
        table.add_column(heading, justify="left" if heading in ("measurement", "") else "right")
    rows = changes.list_differences(comparison, most=None if console.is_verbose() else MOST_ROWS)
    styles = {"worse": "bold red", "better": "green"}
    for row in rows:
        verdict = f"[{styles[row.verdict]}]{row.verdict}[/]" if row.verdict in styles else row.verdict
        table.add_row(console.escape(row.label), row.old, row.new, row.change, verdict)
    console.stdout.print(table)
    if len(rows) < len(comparison.differences):
        console.stdout.print(f"[dim]{len(comparison.differences) - len(rows)} more with -v[/]")
    change = changes.find_most_changed(comparison)
    if change is not None:
        console.stdout.print(changes.describe_exposed_change(change), markup=False)
        for record in change.newly[: changes.MOST_FILES]:
            console.stdout.print(f"  {changes.name_record(record)}", markup=False, soft_wrap=True)
