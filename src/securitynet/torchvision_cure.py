"""Import torchvision where its wheel and torch's do not match.

torchvision's wheel built for CUDA, beside a CPU build of torch, cannot load its compiled operators and then fails at
import with ``operator torchvision::nms does not exist``. Declaring the two operators before the import mends that;
nothing here calls them. Everything in this package imports torchvision, and timm, which imports it, through this
module.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# The library object must stay alive: its declarations go when it goes.
_library: torch.library.Library | None = None


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """Import ``torchvision``, or a module that imports it, declaring the missing operators first if need be.

    Args:
        module: Dotted name of the module to import (``"torchvision.models"``, ``"timm"``).
    """
    global _library
    if _library is None and not _operators_load():
        _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            _library.define(schema)  # type: ignore[no-untyped-call]
    return importlib.import_module(module)


def _operators_load() -> bool:
    """Whether torchvision's compiled operators can be loaded beside this torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # not installed: let the import say so
    folder = Path(spec.submodule_search_locations[0])
    compiled = [path for path in folder.glob("_C*") if path.suffix in (".so", ".pyd")]
    try:
        for path in compiled:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(compiled)
