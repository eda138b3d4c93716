"""Typer commands from Pydantic configurations: one option per field, its help from the field's description.

A command's function takes a configuration; `add_config_options` gives it the signature that Typer reads. A
value on the command line takes precedence over one in a TOML file (``--config``), and that over the default.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from securitynet.errors import ConfigurationError, list_problems, suggest_names
from securitynet.files import read_toml
from securitynet.models.sources.references import list_code

Config = TypeVar("Config", bound=BaseModel)

_PLAIN = (str, int, float, bool, Path)


def add_config_options(
    model: type[Config],
    *,
    positional: Collection[str] = (),
    groups: Mapping[str, Collection[str]] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``f(config, **extra)`` into a function whose signature has one option per field of ``model``.

    Parameters of ``f`` after the first keep their own annotations (``--json`` and the like).

    Args:
        model: The configuration.
        positional: Fields that are arguments rather than options.
        groups: Title -> fields that stand together in the help text.
    """
    panels = {name: title for title, names in (groups or {}).items() for name in names}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        fields = model.model_fields
        in_order = sorted(fields, key=lambda name: list(panels).index(name) if name in panels else len(panels))
        parameters = [_parameter(name, fields[name], name in positional, panels.get(name)) for name in in_order]
        parameters += [_hidden(alias, info) for info in model.model_fields.values() for alias in _older_names(info)]
        config_file = inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None, typer.Option(help="TOML file with any of these options (names with underscores).")
            ],
        )

        def command(**values: Any) -> None:
            extra = {parameter.name: values.pop(parameter.name) for parameter in own}
            given = {key: _join(value) for key, value in values.items() if value not in (None, []) and key != "config"}
            function(parse(model, given, values["config"]), **extra)

        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        command.__signature__ = inspect.Signature([*parameters, config_file, *keyword_only])  # type: ignore[attr-defined]
        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        return command

    return decorate


def parse(model: type[Config], given: dict[str, Any], file: Path | None = None) -> Config:
    """A configuration from options of the command line, which override those of a TOML file.

    Args:
        model: The class of the configuration.
        given: Field -> value, for the options that were given.
        file: The TOML file.

    Raises:
        ConfigurationError: If the file can't be read, names code or trusts it, or a value is not allowed; the first
            wrong options are named.
    """
    stored = {name: value for name, value in (read_toml(file) if file else {}).items() if name not in given}
    _refuse_code(stored, file)
    values = {**stored, **given}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in list_problems(error):
            where = ".".join(str(part) for part in problem["loc"]) or "options"
            message = problem["msg"].removeprefix("Value error, ")
            option = str(problem["loc"][0] if problem["loc"] else where).replace("_", "-")
            if problem["type"] == "missing":
                problems.append(f"{option} is missing")
            elif problem["type"] == "extra_forbidden":
                close = suggest_names(where, model.model_fields)
                problems.append(f"{where!r} is not an option{f' (did you mean {close}?)' if close else ''}")
            elif not problem["loc"]:  # settings that exclude each other; the input is all of them
                problems.append(message)
            else:
                problems.append(f"--{option} {problem['input']!r}: {message[:1].lower()}{message[1:]}")
        raise ConfigurationError("; ".join(problems) + ".", hint="See --help for what is allowed.") from error


def _refuse_code(stored: dict[str, Any], file: Path | None) -> None:
    """Refuse options in a file, which others may have made, that would run code: those are typed."""
    for name, value in stored.items():
        option = f"--{name.replace('_', '-')}"
        code = next(list_code(value), None)
        if code is not None:
            raise ConfigurationError(
                f"{file} names Python code ({code}), which is run only where you name it yourself.",
                hint=f"Look at it first; then give {'the model' if name == 'model' else option} on the command line.",
            )
        if name == "plugin" and value:
            raise ConfigurationError(
                f"{file} names a plug-in, whose code is run only where you name it yourself.",
                hint="Look at it first; then give --plugin on the command line.",
            )
        if name == "trust" and value:
            raise ConfigurationError(
                f"{file} trusts the code of a model or an entry, which only you can decide.",
                hint=f"Leave it out of the file, and give {option} on the command line.",
            )


def _parameter(name: str, info: FieldInfo, positional: bool, panel: str | None = None) -> inspect.Parameter:
    kind = _command_line_type(info.annotation)
    help_text = info.description or ""
    if positional:
        argument = typer.Argument(help=help_text, metavar=name.upper(), show_default=False)
        # Optional for Typer, so that a TOML file can give it; `parse` complains where it is really missing.
        annotation: Any = Annotated[kind | None, argument]
    else:
        default = _shown_default(info)
        if kind is bool:
            option = typer.Option(
                f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}", help=help_text, rich_help_panel=panel
            )
        else:
            option = typer.Option(
                f"--{name.replace('_', '-')}", help=help_text + default, show_default=False, rich_help_panel=panel
            )
        # A list may be given in pieces: of an option that stands there twice, none is lost.
        repeatable = kind is str and get_origin(info.annotation) is tuple
        annotation = Annotated[(list[str] if repeatable else kind) | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _join(value: Any) -> Any:
    """The pieces of a list as one text."""
    return ",".join(value) if isinstance(value, list) else value


def _older_names(info: FieldInfo) -> list[str]:
    """Names that an option had in earlier versions; they still work, but no help text shows them."""
    choices = info.validation_alias.choices[1:] if isinstance(info.validation_alias, AliasChoices) else []
    return [choice for choice in choices if isinstance(choice, str)]


def _hidden(name: str, info: FieldInfo) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", hidden=True, help="An older name of another option.")
    annotation: Any = Annotated[_command_line_type(info.annotation) | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown_default(info: FieldInfo) -> str:
    if info.is_required() or info.default in (None, ()):
        return ""
    value = info.default
    if isinstance(value, tuple):
        value = ",".join(str(item.value if isinstance(item, Enum) else item) for item in value)
    return f" (default: {value.value if isinstance(value, Enum) else value})"  # brackets would be read as markup


def _command_line_type(annotation: Any) -> Any:
    """Return the type that Typer parses for a field: its own if it is plain or a choice, else text for Pydantic."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _command_line_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        kinds = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _command_line_type(kinds[0]) if len(kinds) == 1 else str
    if origin is Literal:
        return (
            annotation if all(isinstance(arg, str) for arg in get_args(annotation)) else type(get_args(annotation)[0])
        )
    if inspect.isclass(annotation) and (annotation in _PLAIN or issubclass(annotation, Enum)):
        return annotation
    return str
