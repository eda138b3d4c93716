"""SecurityNet: find, load and assess public image classifiers.

Assess what can be inferred from a model and done to it, with confidence intervals::

    import securitynet

    result = securitynet.assess(model, train, test)     # a torch.nn.Module and two torch datasets, or references
    result["membership.loss.auc"]                       # one number; result.to_frame() has all, with intervals
    result.exposed_records()                            # the members that attacks identify most easily
    result                                              # a notebook shows tables and plots; result.report is the page

    attack = securitynet.attacks.Loss()                 # one attack on a model and its data, without a report
    scores = attack(model, train, test)

    securitynet.train("cifar-resnet20", "cifar10")      # a target of your own; load_target loads one
    securitynet.list_attacks()                          # also list_models, list_detectors, list_datasets, ...

Models and datasets are references (``"timm:resnet18.a1_in1k"``, ``"folder:photos"``) or objects. Invalid arguments
raise a `SecurityNetError`, whose ``hint`` tells what to do. ``securitynet --help`` describes the command line.

The names below are imported when they are first used, so that ``import securitynet`` is quick and loads no torch.
"""

from __future__ import annotations

import importlib

from securitynet.version import __version__

TYPE_CHECKING = False  # type checkers understand it; importing typing takes longer than the rest

_EXPORTS = {
    "assess": "securitynet.api:assess",
    "attacks": "securitynet.attacks",
    "catalog": "securitynet.catalog",
    "dataset_from_objects": "securitynet.datasets.in_memory:dataset_from_objects",
    "detectors": "securitynet.detectors",
    "four_way": "securitynet.datasets.splits:four_way",
    "list_architectures": "securitynet.listing:list_architectures",
    "list_attacks": "securitynet.listing:list_attacks",
    "list_backdoors": "securitynet.listing:list_backdoors",
    "list_backends": "securitynet.listing:list_backends",
    "list_datasets": "securitynet.listing:list_datasets",
    "list_defenses": "securitynet.listing:list_defenses",
    "list_detectors": "securitynet.listing:list_detectors",
    "list_models": "securitynet.listing:list_models",
    "load_dataset": "securitynet.api:load_dataset",
    "load_target": "securitynet.models.loading.load:load_target",
    "public": "securitynet.datasets.splits:public",
    "train": "securitynet.api:train",
    "AssessConfig": "securitynet.assessments.config:AssessConfig",
    "Measurement": "securitynet.records:Measurement",
    "Outcome": "securitynet.reports.outcome:Outcome",
    "Recipe": "securitynet.models.training.recipe:Recipe",
    "SecurityNetError": "securitynet.errors:SecurityNetError",
    "ThreatModel": "securitynet.records:ThreatModel",
}

__all__ = [*sorted(_EXPORTS), "__version__"]

if TYPE_CHECKING:
    from typing import Any

    from securitynet import attacks, catalog, detectors
    from securitynet.api import assess, load_dataset, train
    from securitynet.assessments.config import AssessConfig
    from securitynet.datasets.in_memory import dataset_from_objects
    from securitynet.datasets.splits import four_way, public
    from securitynet.errors import SecurityNetError
    from securitynet.listing import (
        list_architectures,
        list_attacks,
        list_backdoors,
        list_backends,
        list_datasets,
        list_defenses,
        list_detectors,
        list_models,
    )
    from securitynet.models.loading.load import load_target
    from securitynet.models.training.recipe import Recipe
    from securitynet.records import Measurement, ThreatModel
    from securitynet.reports.outcome import Outcome


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        from securitynet.errors import suggest_names

        close = suggest_names(name, _EXPORTS, most=1, cutoff=0.6)
        hint = f". Did you mean {close}?" if close else ""
        raise AttributeError(f"module 'securitynet' has no attribute {name!r}{hint}")
    module, _, attribute = _EXPORTS[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return list(__all__)
