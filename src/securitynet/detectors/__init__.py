"""Backdoor detectors, one file each: they inspect a model or filter its inputs.

Each is an attribute of this package by the name of its class, imported when it is first used:
``securitynet.detectors.Strip()`` makes one, which is called with a model and its data.
"""

from __future__ import annotations

from typing import Any

from securitynet.registry import Registry

DETECTORS = Registry("detector", package="securitynet.detectors", base="Detector")


def __getattr__(name: str) -> Any:
    return DETECTORS.get_class(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *DETECTORS.class_names])
