"""Adversarially robust ImageNet models of Salman et al. (2020), and the standard ones beside them.

Facts and accuracies come from a table that this package carries; see `securitynet.catalog.published`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from securitynet.catalog.collectors.base import LibraryCollector
from securitynet.catalog.known import complete_entry
from securitynet.catalog.published import ROBUST_TRANSFER, TEST_ACCURACY, PublishedModel, describe_source, load_packaged
from securitynet.catalog.store import Item

_IN_ROBUSTBENCH = frozenset(f"{name}_linf_eps4.0" for name in ("resnet18", "resnet50", "wide_resnet50_2"))
"""The same weights are in RobustBench, with robust accuracies, as Salman2020Do."""

_PAPER = {
    "paper_title": "Do Adversarially Robust ImageNet Models Transfer Better?",
    "paper_link": "https://arxiv.org/abs/2007.08489",
    "venue": "NeurIPS",
    "venue_type": "machine learning",
    "year": 2020,
    "authors": 5,
}


class RobustTransferCollector(LibraryCollector):
    """One entry per architecture, norm and epsilon; epsilon 0 is standard training."""

    library = "robust-models-transfer"

    @override
    def source(self) -> str:
        return str(describe_source(ROBUST_TRANSFER))

    @override
    def collect(self) -> Iterator[Item]:
        for name, (model,) in load_packaged(ROBUST_TRANSFER).items():
            if name not in _IN_ROBUSTBENCH:
                yield _item(model)


def _item(model: PublishedModel) -> Item:
    source, threat = describe_source(ROBUST_TRANSFER), model.facts.get("threat")
    codes: dict[str, Any] = {
        "key": f"{ROBUST_TRANSFER}:{model.name}",
        "source": RobustTransferCollector.library,
        "name": model.name,
        "license": source.license.lower(),
        "code_link": source.address,
        "purpose": "security" if threat else "benchmark",
        "publisher_type": "paper authors",
        "task_type": "classification",
        "head": "classifier",
        "dataset": "ImageNet-1k",
        "classes": 1000,
        "image_height": 224,
        "image_width": 224,
        "image_channels": 3,
        "membership": "assumed",
        "extra_data": False,
        "architecture": model.facts["architecture"],
        "claimed_accuracy": model.values[TEST_ACCURACY],
    }
    if threat:
        codes |= {"threat": threat, "purpose_detail": f"adversarial training ({threat}, eps {model.facts['eps']})"}
        codes |= _PAPER
    entry, sources = complete_entry(codes)
    return Item(entry, sources, model.measured(source.address))
