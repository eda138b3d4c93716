"""Labelled images: loading, caching as uint8, seeded splits. `load` is the entry point.

Importing this package loads no torch; its names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securitynet.datasets.base import Attribute, ImageDataset, Images
    from securitynet.datasets.given import load_given
    from securitynet.datasets.in_memory import dataset_from_objects
    from securitynet.datasets.lazy import LazyImages
    from securitynet.datasets.loading import load
    from securitynet.datasets.members import with_members
    from securitynet.datasets.registry import DATASETS
    from securitynet.datasets.source import Request, Source
    from securitynet.datasets.splits import Splits, four_way, public

_HOMES = {
    "Attribute": "base",
    "DATASETS": "registry",
    "ImageDataset": "base",
    "Images": "base",
    "LazyImages": "lazy",
    "Request": "source",
    "Source": "source",
    "Splits": "splits",
    "dataset_from_objects": "in_memory",
    "four_way": "splits",
    "load": "loading",
    "load_given": "given",
    "public": "splits",
    "with_members": "members",
}

__all__ = [
    "DATASETS",
    "Attribute",
    "ImageDataset",
    "Images",
    "LazyImages",
    "Request",
    "Source",
    "Splits",
    "dataset_from_objects",
    "four_way",
    "load",
    "load_given",
    "public",
    "with_members",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
