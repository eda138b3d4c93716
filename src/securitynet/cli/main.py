"""The entry point: `securitynet COMMAND`. Modules of commands import heavy packages only when they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from securitynet.cli.lazy import LazyGroup
from securitynet.errors import SecurityNetError
from securitynet.idle_threads import limit_idle_loops
from securitynet.untrusted import MAX_SIZE_VARIABLE
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
        "repair": "securitynet.cli.repair:repair",
        "audit": "securitynet.cli.audit:audit",
        "exposure": "securitynet.cli.exposure:exposure",
        "ownership": "securitynet.cli.ownership:ownership",
        "removal": "securitynet.cli.removal:removal",
        "catalog": "securitynet.cli.catalog:app",
        "study": "securitynet.cli.study:app",
        "report": "securitynet.cli.report:report",
        "findings": "securitynet.cli.findings:findings",
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
    max_size: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GIB",
            help=f"Largest size, in GiB, to which a compressed file may grow when it is read, and of weights that are "
            f"downloaded (${MAX_SIZE_VARIABLE}).",
        ),
    ] = None,
) -> None:
    if max_size is not None:
        os.environ[MAX_SIZE_VARIABLE] = str(max_size)  # so that worker processes know it too


def main() -> None:
    """Run the command line; a `SecurityNetError` is printed without a traceback, with exit code 1."""
    from securitynet.cli import console

    console.set_up_logging()
    limit_idle_loops()
    try:
        Path.cwd()
    except OSError:  # libraries that are loaded from a folder that is gone end the process
        console.print_error("The current folder no longer exists.", "Change to another one.")
        sys.exit(1)
    try:
        app()
    except SecurityNetError as error:
        console.print_error(error.message, error.hint)
        sys.exit(1)
    except KeyboardInterrupt:
        console.stderr.print("interrupted; finished work is saved, and the next run continues from there")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has exited (`| head`). Without this, Python would raise again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that can't be written, a file that vanished: not a bug of ours
        name = error.filename2 or error.filename  # the first is a temporary one where a file is moved
        where = f": {name}" if name else ""
        hint = "Check the path, its permissions, and the space left on the disk."
        console.print_error(f"{error.strerror or error}{where}.", hint)
        sys.exit(1)
    except MemoryError as error:
        words = f": {error}" if str(error) else ""
        console.print_error(
            f"There is not enough memory{words}.", "Assess fewer records (--limit), or smaller batches."
        )
        sys.exit(1)
    except ValueError as error:
        # Python, and SQLite, open no path with a NUL character, as JSON may hold one.
        if str(error) not in ("embedded null byte", "embedded null character"):
            raise
        console.print_error("A path holds a NUL character.", None)
        sys.exit(1)
    except RecursionError:
        console.print_error("A file or a setting is nested too deeply to be read.", None)
        sys.exit(1)


if __name__ == "__main__":
    main()
