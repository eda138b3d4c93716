"""`securitynet findings`: the claims and the numbers of the two papers, judged by the catalog, by studies, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from securitynet.cli import console
from securitynet.cli.figures import Db, Doubtful

if TYPE_CHECKING:
    from securitynet.analysis.findings import ClaimFinding
    from securitynet.analysis.papers.compare import Compared
    from securitynet.analysis.statistics import Estimate


def findings(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="STUDY|catalog|ml-doctor",
            help="The catalog's published values, the tables that the ML-Doctor paper prints, or the folder of a study "
            "(can be repeated to judge several together).",
            show_default=False,
        ),
    ] = None,
    db: Db = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="COLUMN=VALUE,...",
            help="Judge by these models only (can be repeated).",
            show_default=False,
        ),
    ] = None,
    doubtful: Doubtful = False,
    untested: Annotated[bool, typer.Option("--untested", help="List claims that this data cannot test.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Judge the claims of both papers, and print their numbers beside this data's.

    Without --from, the data is the catalog. Numbers that differ from the paper's come first.

    Example: securitynet findings --from catalog --from results
    """  # fmt: skip
    from securitynet.analysis import claims, sources
    from securitynet.analysis.findings import STATUSES, judge_claims
    from securitynet.analysis.papers.every import compare_every

    chosen = source or ["catalog"]
    tidy = sources.load_frames(chosen, db=db, where=sources.parse_where(where or []), doubtful=doubtful)
    compared = compare_every(tidy, database="catalog" in chosen and not where)
    judged = judge_claims(claims.EVERY, tidy, compared=compared)
    if json:
        console.print_json(
            {"numbers": [describe_number(item) for item in compared], "claims": [describe_claim(f) for f in judged]}
        )
        return
    _print_numbers(compared)
    for status in STATUSES:
        of_status = [finding for finding in judged if finding.status == status]
        if not of_status:
            continue
        console.stdout.print(f"\n[bold]{status.capitalize()}[/] ({len(of_status)})")
        if status == "not tested" and not untested:
            console.stdout.print("--untested lists them, with the reasons.", style="dim")
            continue
        for finding in of_status:
            console.stdout.print(f"• {console.escape(finding.sentence)} [dim]{finding.claim.source}[/]", soft_wrap=True)


def describe_number(item: Compared) -> dict[str, Any]:
    """A number of a paper and this data's, as JSON."""
    printed = item.printed
    return {
        "name": printed.name,
        "paper": printed.paper,
        "where": printed.where,
        "what": printed.what,
        "estimand": printed.estimand,
        "printed": printed.value,
        **_numbers(item.here),
        "agreement": item.agreement,
    }


def describe_claim(finding: ClaimFinding) -> dict[str, Any]:
    """A finding as JSON: the estimate that decides, and the others, each with its label."""
    claim, tested = finding.claim, finding.tested
    resolved = finding.estimate is not None and tested is not None
    return {
        "name": claim.name,
        "sentence": claim.sentence,
        "source": claim.source,
        "status": finding.status,
        "measure": claim.measure,
        "against": claim.against,
        "margin": claim.margin,
        "estimand": tested.label if tested is not None else None,
        **(_numbers(finding.estimate) if resolved and finding.estimate is not None else {"value": None}),
        "beside": [
            {"estimand": label, **_numbers(other)} for label, other in (tested.beside if tested is not None else ())
        ],
        "papers": [item.printed.name for item in finding.compared],
        "finding": finding.sentence,
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    """Value, interval and n; None where there is no number."""
    values = {name: getattr(estimate, name) for name in ("value", "low", "high")}
    return {**{name: value if value == value else None for name, value in values.items()}, "n": estimate.n}


def _print_numbers(compared: Sequence[Compared]) -> None:
    from rich.table import Table

    if not compared:
        console.stdout.print("This data has none of the numbers that the papers print.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "what", "paper", "here", "n", "how", "where"):
        table.add_column(heading, no_wrap=heading in ("", "paper", "here", "n"))
    marks = {"differs": "[bold]differs[/]", "agrees": "agrees", "no interval": "[dim]no interval[/]"}
    for item in compared:
        printed = item.printed
        cells = (printed.what, item.paper_text, item.here_text, f"{item.here.n:,}", printed.estimand,
                 f"{printed.paper}, {printed.where}")  # fmt: skip
        table.add_row(marks[item.agreement], *map(console.escape, cells))
    console.stdout.print(table)
