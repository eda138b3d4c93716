"""Selects attacks and detectors by the names that users write, and parses settings, ``NAME.FIELD=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from securitynet.attacks import ATTACKS
from securitynet.detectors import DETECTORS
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.files import parse_value
from securitynet.registry import Registry

if TYPE_CHECKING:
    from securitynet.methods.base import Method

Kind = Literal["attack", "detector"]

REGISTRIES: dict[Kind, Registry] = {"attack": ATTACKS, "detector": DETECTORS}


def choose_methods(kind: Kind, names: Sequence[str]) -> list[str]:
    """Expand ``all``, ``standard``, ``none``, names of families and single names to full names, each once.

    Raises:
        UnknownName: If a name is none of these.
    """
    registry, chosen = REGISTRIES[kind], []
    for name in names:
        if name == "all":
            chosen += registry.names()
        elif name == "standard":
            chosen += [full for full in registry.names() if registry.get(full).costs is None]
        elif name in registry.families():
            chosen += registry.names(name)
        elif name != "none":
            chosen.append(registry.resolve(name).name)
    return list(dict.fromkeys(chosen))


def find_method_kind(name: str) -> Kind:
    """Return whether a full or short name belongs to an attack or a detector.

    Raises:
        UnknownName: If it belongs to neither; similar names are suggested.
        ConfigurationError: If a short name occurs in several families.
    """
    for kind, registry in REGISTRIES.items():
        try:
            registry.resolve(name)
        except UnknownName:
            continue
        return kind
    everything = {full.rpartition(".")[2] for registry in REGISTRIES.values() for full in registry}
    raise UnknownName("attack or detector", name, everything)


def parse_method_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse settings of attacks and detectors to fields by full name; nested fields become nested tables.

    Args:
        texts: Settings such as ``lira.shadows.count=64`` or ``modified-entropy.per_class=true``; values are written as
            in TOML, and plain words are strings.

    Raises:
        ConfigurationError: If a setting cannot be parsed.
        UnknownName: If it names an attack or a detector that does not exist.
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
        table = settings.setdefault(REGISTRIES[find_method_kind(parts[0])].resolve(parts[0]).name, {})
        for part in parts[1:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigurationError(
                    f"--configure {text!r} sets a field of {part}, which another setting gives one value.",
                    hint=f"Give {part} either one value or its fields.",
                )
        table[parts[-1]] = parse_value(value.strip())
    return settings


def make_method(kind: Kind, name: str, settings: dict[str, Any]) -> Method:
    """Create an attack or a detector with these settings.

    Args:
        kind: ``attack`` or ``detector``.
        name: Its name.
        settings: Values by field; the others keep their defaults.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting does not exist or has an invalid value; the message names all of them.
    """
    from securitynet.methods.base import InvalidSettings  # here, because choosing methods by name needs no torch

    cls: type[Method] = REGISTRIES[kind].get(name)
    try:
        return cls.model_validate(settings)
    except InvalidSettings as error:
        raise InvalidSettings(cls, error.error, name) from None


def find_family(kind: Kind, name: str) -> str:
    """Return the key in `securitynet.records.FAMILIES` of an attack or a detector by its full name."""
    return "backdoor" if kind == "detector" else name.partition(".")[0]
