"""Where networks come from: one module per scheme of a model reference, imported when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securitynet.models.sources.base import Source
    from securitynet.models.sources.references import ModelReference

_MODULES = {
    "arch": "securitynet.models.sources.arch",
    "hf": "securitynet.models.sources.hf",
    "python": "securitynet.models.sources.python",
    "pytorchcv": "securitynet.models.sources.pytorchcv",
    "timm": "securitynet.models.sources.timm",
    "torchvision": "securitynet.models.sources.torchvision",
}


def open_source(reference: ModelReference) -> Source:
    """What is known about a network before its weights are read.

    Raises:
        ModelError: If the library has no such model, or a description of it cannot be read.
        UnknownName: If one of our own architectures is meant and there is none of that name.
    """
    source: Source = importlib.import_module(_MODULES[reference.scheme]).open_source(reference)
    return source
