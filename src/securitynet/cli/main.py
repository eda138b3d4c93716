"""The entry point: `securitynet COMMAND`. Command modules import heavy things only when they run."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import securitynet
from securitynet.cli.assess import assess
from securitynet.cli.demo import demo
from securitynet.cli.listing import list_
from securitynet.cli.train import train
from securitynet.errors import SecurityNetError

app = typer.Typer(
    name="securitynet",
    help="Find, load and assess public image classifiers for what can be inferred from them and done to them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("assess")(assess)
app.command("train")(train)
app.command("list")(list_)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"securitynet {securitynet.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors that a user can meet are printed without a traceback, with exit code 1."""
    from securitynet.cli import console

    console.set_up_logging()
    try:
        app()
    except SecurityNetError as error:
        console.stderr.print(f"[bold red]error:[/] {_escape(error.message)}", soft_wrap=True)
        if error.hint:
            console.stderr.print(f"[dim]hint:[/]  {_escape(error.hint)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.stderr.print("interrupted; what was finished is kept, and the next run goes on from there")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`). Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
