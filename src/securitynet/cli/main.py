"""The entry point: `securitynet COMMAND`. Modules of commands import heavy packages only when they run."""

from __future__ import annotations

import os
import sys
from typing import Annotated, ClassVar

import typer

from securitynet.cli.lazy import LazyGroup
from securitynet.errors import SecurityNetError
from securitynet.version import __version__


class Commands(LazyGroup):
    """The commands, in the order in which a new user needs them.

    Attributes:
        locations: Command -> where it is defined.
    """

    locations: ClassVar[dict[str, str]] = {
        "demo": "securitynet.cli.demo:demo",
        "assess": "securitynet.cli.assess:assess",
        "compare": "securitynet.cli.compare:compare",
        "verify": "securitynet.cli.evidence:verify",
        "sign": "securitynet.cli.evidence:sign",
        "export": "securitynet.cli.evidence:export",
        "train": "securitynet.cli.train:train",
        "audit": "securitynet.cli.audit:audit",
        "ownership": "securitynet.cli.ownership:ownership",
        "catalog": "securitynet.cli.catalog:app",
        "study": "securitynet.cli.study:app",
        "report": "securitynet.cli.report:report",
        "figures": "securitynet.cli.figures:app",
        "serve": "securitynet.cli.serve:serve",
        "list": "securitynet.cli.listing:list_",
    }


app = typer.Typer(
    cls=Commands,
    name="securitynet",
    help="Find, load and assess public image classifiers: how vulnerable each is to inference attacks, evasion, model "
    "stealing and backdoors.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"securitynet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a `SecurityNetError` is printed without a traceback, with exit code 1."""
    from securitynet.cli import console

    console.set_up_logging()
    try:
        app()
    except SecurityNetError as error:
        console.stderr.print(f"[bold red]error:[/] {console.escape(error.message)}", soft_wrap=True)
        if error.hint:
            console.stderr.print(f"[dim]hint:[/]  {console.escape(error.hint)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.stderr.print("interrupted; finished work is saved, and the next run continues from there")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has exited (`| head`). Without this, Python would raise again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that can't be written, a file that vanished: not a bug of ours
        where = f": {error.filename}" if error.filename else ""
        console.stderr.print(
            f"[bold red]error:[/] {console.escape(f'{error.strerror or error}{where}.')}", soft_wrap=True
        )
        console.stderr.print("[dim]hint:[/]  Check the path, its permissions, and the space left on the disk.")
        sys.exit(1)


if __name__ == "__main__":
    main()
