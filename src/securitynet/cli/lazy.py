"""A command group whose commands are imported when they run: listing them reads their help as text."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from securitynet.cli import console
from securitynet.errors import suggest_names

_UsageError: Any = typer.BadParameter.__mro__[1]  # Click's, of which Typer may bring its own copy


class SuggestingCommand(TyperCommand):
    """A command that says which option, or which value of a choice, may have been meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; the message about an unknown option or value suggests close ones."""
        try:
            return super().parse_args(ctx, list(args))
        except _UsageError as error:
            close = ""
            error.message = error.message.removeprefix("Value error, ")
            if hasattr(error, "possibilities"):  # no such option
                error.possibilities = None  # Click's own suggestions
                shown = [parameter for parameter in self.params if not getattr(parameter, "hidden", False)]
                names = [name.removeprefix("--") for one in shown for name in one.opts if name.startswith("--")]
                close = suggest_names(error.option_name.removeprefix("--"), names, cutoff=0.6)
                close = " or ".join(f"--{name}" for name in close.split(" or ") if name)
            elif "is not one of" in error.message:
                # Words of the message in quotes: the value, then the choices.
                wrong, *choices = re.findall(r"'([^']*)'", error.message) or [""]
                close = suggest_names(wrong, choices)
            if close:
                error.message = f"{error.message.rstrip('.')}. Did you mean {close}?"
            raise


class SuggestingGroup(TyperGroup):
    """A group that says which command may have been meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first argument; for a name that is none, those that it may have been meant for."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            close = suggest_names(args[0], names, most=2, cutoff=0.6)
            hint = f" Did you mean {close}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A group whose commands are imported when they run.

    Attributes:
        locations: Command -> ``"module:function"``, or ``"module:app"`` for a sub-group.
    """

    locations: ClassVar[dict[str, str]] = {}
    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, in the order of `locations`."""
        return list(self.locations)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; while help is printed, only its name and the first line of its docstring."""
        if cmd_name not in self.locations:
            return None
        module, _, attribute = self.locations[cmd_name].partition(":")
        if self._listing:
            return TyperCommand(cmd_name, help=_summary(module, attribute))
        value = getattr(importlib.import_module(module), attribute)
        if not isinstance(value, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            single.command(cmd_name, cls=SuggestingCommand)(value)
            value = single
        value.info.cls = SuggestingGroup
        for registered in value.registered_commands:
            registered.cls = SuggestingCommand
            if registered.callback is not None:
                registered.callback = add_verbosity(registered.callback)
        command = typer.main.get_command(value)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print help without importing the commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def add_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a command with the options ``-v`` and ``-q``, which every command has."""
    if hasattr(function, "_has_verbosity"):
        return function

    def command(**values: Any) -> Any:
        verbose, quiet = values.pop("verbose"), values.pop("quiet")
        if verbose or quiet:
            console.set_verbosity(1 if verbose else -1)
        return function(**values)

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("verbose", Verbose), ("quiet", Quiet))
    ]
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*parameters, *options]]
    )
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command._has_verbosity = True  # type: ignore[attr-defined]
    return command


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print details, and more of what happens.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no more than results, warnings and errors.")]


def _summary(module: str, attribute: str) -> str:
    """First line of a function's docstring, or of the module's where there is no such function."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == attribute]
    summary = (ast.get_docstring(functions[0] if functions else tree) or "").partition("\n")[0]
    if not functions:  # "`securitynet study`: plan and run studies."
        summary = summary.rpartition("`: ")[2]
    return summary[:1].upper() + summary[1:]
