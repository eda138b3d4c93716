"""The errors that users see. The command line prints them without a traceback and exits with code 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

NO_GRADIENTS = "passes no gradients to its inputs"
"""What the error of an attack that needs gradients says; reports look for it."""

_MOST_PROBLEMS = 20


class SecurityNetError(Exception):
    """Base of all errors that are meant for users: they say what is wrong and what to do.

    Args:
        message: What is wrong, in one or two sentences.
        hint: What the user can do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigurationError(SecurityNetError):
    """An option or a configuration file that is invalid or contradicts another."""


def list_problems(error: Any) -> list[Any]:
    """The first problems that a Pydantic ``ValidationError`` lists: a file of settings may have a million.

    Args:
        error: The error.
    """
    return list(error.errors()[:_MOST_PROBLEMS])


def describe_problems(error: Any, whole: str = "") -> str:
    """The first problems that a Pydantic ``ValidationError`` lists, in words: ``field: what is wrong; ...``.

    Args:
        error: The error.
        whole: What to call all fields together, where they exclude each other; by default nothing.
    """
    described = []
    for problem in list_problems(error):
        where, message = ".".join(map(str, problem["loc"])) or whole, problem["msg"].removeprefix("Value error, ")
        described.append(f"{where}{': ' if where else ''}{message[:1].lower()}{message[1:]}")
    return "; ".join(described)


def suggest_names(name: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.5) -> str:
    """Names that may have been meant, the closest first, joined by "or"; empty if none looks like it.

    Args:
        name: The unknown name; upper and lower case are not distinguished.
        known: The names that there are.
        most: Largest number of names to suggest.
        cutoff: The least likeness, in [0, 1], by `difflib.SequenceMatcher.ratio`.
    """
    by_lower = {item.lower(): item for item in known}
    exact = [name.lower()] if name.lower() in by_lower else []
    close = exact or difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=cutoff)
    return " or ".join(by_lower[item] for item in close)


class UnknownName(SecurityNetError):
    """A name that is not in a registry.

    Args:
        kind: What the registry holds, in the singular.
        name: The unknown name.
        known: The names of the registry; close ones are suggested.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = suggest_names(name, known)
        hint = f"Did you mean {close}?" if close else f"Known: {', '.join(known) or 'none'}."
        super().__init__(f"There is no {kind} named {name!r}.", hint=hint)


class MissingExtra(SecurityNetError):
    """An optional dependency that is needed and not installed.

    Args:
        package: The missing package.
        extra: The extra of securitynet that installs it.
        purpose: What needs it; the beginning of a sentence.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed.",
            hint=f"Install it with: pip install 'securitynet[{extra}]'",
        )


class RefusedFile(SecurityNetError):
    """A file that would take too much memory or time to read: a device, a bomb, a header that lies."""


class DatasetError(SecurityNetError):
    """A dataset that cannot be read or has invalid content."""


class SplitError(DatasetError):
    """A split that cannot be made from this dataset."""


class ModelError(SecurityNetError):
    """A model that cannot be found, loaded or used."""


class UnsafeFile(ModelError):
    """A model file that would have to execute code to be read."""


class WeightsMismatch(ModelError):
    """Weights that do not fit the architecture."""


class TargetError(SecurityNetError):
    """A target whose output is unusable (NaN, a wrong shape, an HTTP error)."""


class AccessDenied(SecurityNetError):
    """The threat model does not allow this use of the target."""


class QueryBudgetExceeded(SecurityNetError):
    """The query cap of a target is reached; the outputs received so far are stored."""


class PolicyError(ConfigurationError):
    """A policy file that cannot be understood."""
