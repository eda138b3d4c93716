"""Settings of attacks as the command line writes them: ``NAME.FIELD=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from securitynet.attacks import ATTACKS
from securitynet.attacks.base import Attack
from securitynet.errors import ConfigurationError
from securitynet.files import parse_toml


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Fields of attacks, by the attack's full name; nested fields become nested tables.

    Args:
        texts: Such as ``lira.shadows.count=64`` or ``modified-entropy.per_class=true``; values as TOML writes them, and
            plain words as strings.

    Raises:
        ConfigurationError: If one is not understood.
        UnknownName: If it names an attack that does not exist.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        parts = path.strip().split(".")
        if parts[0] in ATTACKS.families() and len(parts) > 2:
            parts = [".".join(parts[:2]), *parts[2:]]
        if not equals or len(parts) < 2 or not all(parts):
            raise ConfigurationError(
                f"--configure {text!r} is not understood.",
                hint="Write NAME.FIELD=VALUE, such as lira.shadows.count=64.",
            )
        table = settings.setdefault(ATTACKS.resolve(parts[0]).name, {})
        for part in parts[1:-1]:
            table = table.setdefault(part, {})
        table[parts[-1]] = _value(value.strip())
    return settings


def make_attack(name: str, settings: dict[str, Any]) -> Attack:
    """An attack with these settings.

    Raises:
        ConfigurationError: If a setting does not exist or has a value that is not allowed; all are named.
    """
    kind: type[Attack] = ATTACKS.get(name)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ').lower()}"
            for problem in error.errors()
        )
        fields = ", ".join(kind.model_fields) or "none"
        raise ConfigurationError(f"Settings of {name}: {problems}.", hint=f"Its fields: {fields}.") from error


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ConfigurationError:
        return text  # a plain word
