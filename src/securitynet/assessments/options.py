"""Options given as keyword arguments; errors are reported in plain sentences, with suggestions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from securitynet.errors import ConfigurationError, list_problems, suggest_names

Config = TypeVar("Config", bound=BaseModel)

_STATED = "a path of a list, a boolean mask with a value for each record, or numbers or names of records"
_WORDS = {
    "Input should be": "it should be",
    "a valid tuple": "a list",
    "Input is not a valid path for <class 'pathlib.Path'>": "it should be a path",
}
"""Pydantic's words -> words for readers who do not know Pydantic."""

_MEANT = {"members": _STATED, "non_members": _STATED}


def make_config(model: type[Config], values: Mapping[str, Any], *, others: Collection[str] = ()) -> Config:
    """A configuration made of keyword arguments.

    Args:
        model: Its class.
        values: By name.
        others: Further names that the caller accepts, for suggestions.

    Raises:
        ConfigurationError: If there is no such option, one is missing, or a value is not allowed; all are named.
    """
    _check_names(values, model.model_fields, others)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        # Not chained, because a notebook would show Pydantic's own message first.
        raise ConfigurationError(f"{'; '.join(explain(error))}.") from None


def check_option_names(options: Mapping[str, Any], *takers: Callable[..., Any]) -> None:
    """Raise `ConfigurationError` for the first option that none of the functions or classes takes by name."""
    known = {
        name
        for taker in takers
        for name, parameter in inspect.signature(taker).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    _check_names(options, known)


def _check_names(values: Iterable[str], known: Iterable[str], others: Iterable[str] = ()) -> None:
    names = list(known)
    for name in values:
        if name not in names:
            close = suggest_names(name, [*names, *others], cutoff=0.6)
            hint = f"Did you mean {close}?" if close else f"There are: {', '.join(sorted(names))}."
            raise ConfigurationError(f"There is no option {name!r}.", hint=hint)


def explain(error: ValidationError) -> list[str]:
    """One sentence per invalid option, without its full stop."""
    problems: dict[str, str] = {}
    for problem in list_problems(error):
        option = str(problem["loc"][0]) if problem["loc"] else "the options"
        if option in problems:
            continue
        message = problem["msg"].removeprefix("Value error, ").rstrip(".")
        if problem["type"] == "missing":
            problems[option] = f"{option} is missing"
        elif option in _MEANT:
            problems[option] = f"{option} must be {_MEANT[option]}"
        else:
            shown = repr(problem["input"])
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            for written, meant in _WORDS.items():
                message = message.replace(written, meant, 1)
            problems[option] = f"{option}={shown} is not understood: {message[:1].lower()}{message[1:]}"
    return list(problems.values())


def flatten_settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Nested settings as ``configure`` takes them: ``{"lira": {"shadows": {"count": 4}}}`` is ``lira.shadows.count=4``.

    Raises:
        ConfigurationError: If a value is no number, text, truth value or list of these.
    """
    return tuple(_flatten(settings, ""))


def _flatten(settings: Mapping[str, Any], before: str) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{before}{name}.")
            continue
        try:
            yield f"{before}{name}={json.dumps(value)}"
        except TypeError:
            raise ConfigurationError(
                f"configure: {before}{name} can't be {type(value).__name__}.",
                hint="Values are numbers, text, true or false, and lists of these.",
            ) from None
