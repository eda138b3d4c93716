"""Find, collect, correct and choose public models: the catalog. Filters are generated from the codebook."""

from __future__ import annotations

import typer

from securitynet.cli.catalog import fill, find, scan, study

app = typer.Typer(help="Find, collect, correct and choose public models.", no_args_is_help=True)
for _module in (fill, scan, find, study):
    app.registered_commands += _module.app.registered_commands

__all__ = ["app"]
