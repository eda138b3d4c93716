"""Imports of peers that import torchvision, wherever its build and torch's do not match."""

from __future__ import annotations

import sys
from types import ModuleType

from harness.environments import BENCHMARKS


def imported(module: str) -> ModuleType:
    """A module that imports torchvision, in any environment (see `securitynet.torchvision_cure`)."""
    sys.path.insert(0, str(BENCHMARKS.parent / "src"))
    from securitynet.torchvision_cure import import_torchvision  # needs torch alone

    return import_torchvision(module)
