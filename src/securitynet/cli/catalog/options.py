"""Options that several commands share: the database, and one filter or value per code of the codebook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from securitynet.catalog.codebook import CodeInfo, load_codebook

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog

Db = Annotated[
    str | None, typer.Option("--db", metavar="URL", help="Database URL, or a SQLite file.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Identifier = Annotated[str, typer.Argument(metavar="ENTRY", help="Id, key, reference, or a name that only one has.")]
Note = Annotated[str | None, typer.Option("--note", help="Why; kept in the history.", show_default=False)]
Words = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words that must all occur.")]
Duplicates = Annotated[bool, typer.Option("--duplicates", help="Show duplicates too.")]


def add_code_options(
    panel: str, describe: Callable[[CodeInfo], str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per code of the codebook; it receives those that were given as ``codes``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "codes"]
        generated = [
            inspect.Parameter(
                f"code_{info.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None,
                    typer.Option(info.option, help=describe(info), show_default=False, metavar="VALUE",
                                 rich_help_panel=f"{panel}: {info.group}"),
                ],
            )
            for info in load_codebook().values()
        ]  # fmt: skip

        def command(**values: Any) -> None:
            codes = {name: values.pop(f"code_{name}") for name in load_codebook()}
            function(**values, codes={name: value for name, value in codes.items() if value is not None})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = inspect.Signature([*parameters, *generated])  # type: ignore[attr-defined]
        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        return command

    return decorate


def _filter_help(info: CodeInfo) -> str:
    values = f" One of: {', '.join(info.values)}." if info.values else ""
    ranges = " Ranges: LOW..HIGH, >=LOW." if info.numeric else ""
    return info.meaning + values + ranges


def _value_help(info: CodeInfo) -> str:
    values = f" One of: {', '.join(info.values)}." if info.values else ""
    return info.meaning + values + (" Separate several by semicolons." if info.several else "")


filtered = add_code_options("Filters", _filter_help)
valued = add_code_options("Codes", _value_help)


def open_catalog(db: str | None) -> Catalog:
    """The catalog at ``--db``, or the user's own."""
    import securitynet.catalog

    return securitynet.catalog.open(db)
