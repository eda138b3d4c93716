"""Attacks, one file each, in one folder per family. The registry finds them; no other file needs to be edited.

Each is an attribute of this package under the name of its class, and is imported on first use:
``securitynet.attacks.Loss()`` creates an attack, which is called with a model and its data.
"""

from __future__ import annotations

from typing import Any

from securitynet.registry import Registry

ATTACKS = Registry("attack", package="securitynet.attacks", base="Attack")


def __getattr__(name: str) -> Any:
    return ATTACKS.get_class(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *ATTACKS.class_names])
