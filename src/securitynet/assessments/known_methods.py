"""The default settings of this package's methods and defenses, without importing them.

Reports and tables of results name the settings that differ from the defaults. Importing the methods for that would
import torch: seconds and 230 MiB. ``known_methods.json`` beside this module is generated from the classes
(`write_known_methods`); a test keeps the two equal.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from securitynet.assessments.method_settings import make_method
from securitynet.attacks import ATTACKS
from securitynet.defenses import DEFENSES
from securitynet.detectors import DETECTORS
from securitynet.errors import SecurityNetError
from securitynet.registry import Registry

FILE = Path(__file__).with_name("known_methods.json")

_REGISTRIES: dict[str, Registry] = {"attack": ATTACKS, "detector": DETECTORS, "defense": DEFENSES}


def find_default_settings(kind: str, name: str) -> dict[str, Any] | None:
    """The settings of a method when none are given; None if it is not installed or has required settings.

    Args:
        kind: ``attack``, ``detector`` or ``defense``.
        name: Its name.
    """
    full, known = _look_up(kind, name)
    if known is None:
        return _find_settings(kind, full) if full else None
    settings: dict[str, Any] | None = known["settings"]
    return settings


def has_pictures(kind: str, name: str) -> bool:
    """Whether the output of an attack or a detector has pictures; False if it is not installed."""
    full, known = _look_up(kind, name)
    if known is None:
        return full is not None and _has_pictures(kind, full)
    return bool(known["pictures"])


def is_own(kind: str, name: str) -> bool:
    """Whether a method is one of this package's: neither a plug-in's nor one that is not installed."""
    return _look_up(kind, name)[1] is not None


def write_known_methods() -> str:
    """The content of the file, as text."""
    kinds: dict[str, dict[str, Any]] = {}
    for kind, registry in _REGISTRIES.items():
        own = [name for name in registry if _is_own(kind, name)]
        kinds[kind] = {name: {"settings": _find_settings(kind, name)} for name in own}
        if kind != "defense":
            for name in own:
                kinds[kind][name]["pictures"] = _has_pictures(kind, name)
    return json.dumps(kinds, indent=1, ensure_ascii=False) + "\n"


@functools.cache
def _read_file() -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return known


def _look_up(kind: str, name: str) -> tuple[str | None, dict[str, Any] | None]:
    """(full name, None if it is not installed; what the file says, None if nothing, as of a plug-in's)."""
    try:
        full = _REGISTRIES[kind].resolve(name).name
    except SecurityNetError:
        return None, None
    return full, _read_file()[kind].get(full) if _is_own(kind, full) else None


def _is_own(kind: str, name: str) -> bool:
    """Whether a method is this package's, not a plug-in's."""
    return _REGISTRIES[kind].entries[name].location.startswith(f"securitynet.{kind}s.")


def _find_settings(kind: str, name: str) -> dict[str, Any] | None:
    from securitynet.defenses.base import make_defense

    try:
        made = make_defense(name) if kind == "defense" else make_method(kind, name, {})  # type: ignore[arg-type]
    except SecurityNetError:
        return None
    return dict(made.model_dump(mode="json"))


def _has_pictures(kind: str, name: str) -> bool:
    from securitynet.methods.output import Output

    output = _REGISTRIES[kind].get(name).output
    return getattr(output, "galleries", None) is not Output.galleries
