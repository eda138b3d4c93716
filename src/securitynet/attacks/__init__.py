"""Attacks, one file each, in a folder per family. The registry finds them; nothing else needs an edit.

Each is an attribute of this package by the name of its class, imported when it is first used:
``securitynet.attacks.Loss()`` makes one, which is called with a model and its data.
"""

from __future__ import annotations

from typing import Any

from securitynet.registry import Registry

ATTACKS = Registry("attack", package="securitynet.attacks", base="Attack")


def __getattr__(name: str) -> Any:
    return ATTACKS.get_class(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *ATTACKS.class_names])
