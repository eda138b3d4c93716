"""`securitynet list`: the names that other commands take."""

from __future__ import annotations

import importlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console

REGISTRIES = {
    "attacks": "securitynet.attacks:ATTACKS",
    "detectors": "securitynet.detectors:DETECTORS",
    "defenses": "securitynet.defenses:DEFENSES",
    "backdoors": "securitynet.backdoors:BACKDOORS",
    "datasets": "securitynet.datasets.registry:DATASETS",
    "architectures": "securitynet.models.architectures:ARCHITECTURES",
    "backends": "securitynet.models.sources.schemes:SCHEMES",
}

Kind = Enum("Kind", {name: name for name in REGISTRIES}, type=str)  # type: ignore[misc]


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", metavar="|".join(REGISTRIES), show_default=False)],
    plugin: Annotated[
        list[Path] | None, typer.Option(help="Python file with attacks, defenses or datasets of your own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """List attacks, detectors, defenses, backdoors, datasets, architectures or kinds of model, one per line."""
    from rich.table import Table

    for file in plugin or ():
        from securitynet.plugins import load_plugin

        load_plugin(file)
    module, _, attribute = REGISTRIES[kind.value].partition(":")
    registry = getattr(importlib.import_module(module), attribute)
    if json:
        console.print_json([{"name": entry.name, "summary": entry.summary} for entry in registry.entries.values()])
        return
    if not len(registry):
        console.stdout.print(f"This version has no {kind.value}.")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for entry in registry.entries.values():
        table.add_row(f"[bold]{console.escape(entry.name)}[/]", console.escape(entry.summary))
    console.stdout.print(table)
