"""SecurityNet: find, load and assess public image classifiers.

The names below are imported when they are first used, so that ``import securitynet`` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from securitynet.version import __version__

_EXPORTS = {
    "assess": "securitynet.api:assess",
    "catalog": "securitynet.catalog",
    "four_way": "securitynet.datasets.splits:four_way",
    "load_dataset": "securitynet.datasets:load",
    "load_target": "securitynet.models.loading.load:load_target",
    "public": "securitynet.datasets.splits:public",
    "train": "securitynet.models.store.train_target:train_target",
    "AssessConfig": "securitynet.assessments.config:AssessConfig",
    "Measurement": "securitynet.records:Measurement",
    "Recipe": "securitynet.models.training.recipe:Recipe",
    "SecurityNetError": "securitynet.errors:SecurityNetError",
    "ThreatModel": "securitynet.records:ThreatModel",
}

__all__ = [*sorted(_EXPORTS), "__version__"]

if TYPE_CHECKING:
    from securitynet.api import assess
    from securitynet.assessments.config import AssessConfig
    from securitynet.datasets import load as load_dataset
    from securitynet.datasets.splits import four_way, public
    from securitynet.errors import SecurityNetError
    from securitynet.models.loading.load import load_target
    from securitynet.models.store.train_target import train_target as train
    from securitynet.models.training.recipe import Recipe
    from securitynet.records import Measurement, ThreatModel


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'securitynet' has no attribute {name!r}")
    module, _, attribute = _EXPORTS[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return list(__all__)
