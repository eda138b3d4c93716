"""`securitynet catalog scan`: find trained classifiers in folders, review them, and accept them into the catalog."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.cli import console
from securitynet.cli.catalog.options import Db, Json, open_catalog
from securitynet.cli.catalog.output import print_table

if TYPE_CHECKING:
    from securitynet.scan import Candidate, ScanReport

app = typer.Typer()


@app.command()
def scan(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of cloned repositories.")],
    review: Annotated[
        bool, typer.Option("--review", help="List every value with its evidence and confidence.")
    ] = False,
    accept: Annotated[
        float | None,
        typer.Option(
            "--accept", min=0, max=1, help="Add candidates of at least this confidence; less sure values are left out."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the candidates, JSON Lines.", show_default=False)
    ] = None,
    max_size: Annotated[int, typer.Option("--max-size", min=1, help="Largest file that is read, in MiB.")] = 1024,
    db: Db = None,
    json: Json = False,
) -> None:
    """Find trained classifiers in folders: network, classes, dataset, licence, each with its evidence.

    Weights are read as data and code as text; nothing that is found is run. Equal weights are one candidate.

    Example: securitynet catalog scan repositories --review
    """
    from securitynet.files import write_atomically
    from securitynet.scan import scan as run
    from securitynet.scan.candidates import accept as accepted

    with console.show_progress() as progress:
        report = run(folders, max_size=max_size << 20, report_progress=progress)
    rows = [candidate.row() for candidate in report.candidates]
    if out is not None:
        with write_atomically(out) as stream:
            stream.writelines(json_module.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    added = None
    if accept is not None:
        with open_catalog(db) as catalog:
            tally = catalog.add_items(accepted(report.candidates, accept), "scan")
            added = tally.added + tally.changed
    if json:
        console.print_json({"files": report.files, "candidates": rows, "refused": report.refused, "added": added})
        return
    _show(report, review=review)
    if added is not None:
        console.stdout.print(f"{added} entries added or changed")


def _show(report: ScanReport, *, review: bool) -> None:
    """Print the candidates: one row each, or one row a value."""
    if review:
        print_table(("file", "code", "value", "confidence", "evidence"), list(_evidence_rows(report.candidates)))
    else:
        codes = ("reference", "classes", "dataset")
        rows = []
        for candidate in report.candidates:
            surest = candidate.surest()
            values = [
                f"{surest[code].value} ({surest[code].confidence:.2f})" if code in surest else "" for code in codes
            ]
            rows.append([candidate.paths[0], len(candidate.paths), *values, f"{candidate.confidence:.2f}"])
        print_table(("file", "copies", *codes, "confidence"), rows)
    for file, reason in report.refused.items():
        console.stderr.print(f"not read: {file}: {reason}", markup=False, soft_wrap=True)
    console.stdout.print(
        f"{len(report.candidates)} sets of weights in {report.files} files; not read: {len(report.refused)}"
    )


def _evidence_rows(candidates: list[Candidate]) -> list[list[str]]:
    return [
        [candidate.paths[0], item.code, str(item.value), f"{item.confidence:.2f}", item.reason]
        for candidate in candidates
        for item in sorted(candidate.evidence, key=lambda item: (item.code, -item.confidence))
    ]
