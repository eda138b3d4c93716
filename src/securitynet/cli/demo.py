"""`securitynet demo`: an overfitted and a regularised model of digits, compared in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console


def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, results and the report.")] = Path("securitynet-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the split, the training and the attacks.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print both results as JSON to stdout.")] = False,
) -> None:
    """Train an overfitted and a regularised model of digits, assess both, and compare them in one report.

    Needs no download. A second run reuses the results of the first.
    """
    from securitynet.cli.assess import show_result
    from securitynet.demo import run
    from securitynet.memory import keep_freed_memory

    keep_freed_memory()
    with console.show_progress() as progress:
        result = run(out, seed=seed, device=device, progress=progress)
    if json:
        console.print_json([document.to_json() for document in result.documents])
    else:
        for name, document in zip(result.names, result.documents, strict=True):
            console.stdout.print(f"[bold]The {name} model[/]")
            show_result(document)
            console.stdout.print()
        console.stdout.print(f"Report: {result.report}", soft_wrap=True, markup=False)
