"""What the targets of a study need and this machine lacks: files of datasets, and packages."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from securitynet.datasets.availability import explain_absent
from securitynet.errors import SecurityNetError
from securitynet.models.sources.references import parse_reference
from securitynet.studies.definition.targets import TargetPlan


@dataclass(frozen=True)
class Absent:
    """Something that targets need.

    Attributes:
        what: Reference of a dataset, or name of a package.
        targets: Number of targets that need it.
        remedy: How to get it.
    """

    what: str
    targets: int
    remedy: str


def find_absent(targets: Iterable[TargetPlan]) -> list[Absent]:
    """List the datasets and packages that targets need and that are not on this machine, the most needed first.

    Args:
        targets: The targets.
    """
    datasets: Counter[tuple[str, str | None]] = Counter()
    packages: Counter[tuple[str, str]] = Counter()
    for target in targets:
        root = target.options.get("data_root")
        for option in ("dataset", "auxiliary_dataset"):
            if target.options.get(option):
                datasets[str(target.options[option]), root] += 1
        declared = parse_reference(str(target.options["model"])).declaration
        if declared.install:
            packages.update((library, declared.install) for library in declared.libraries)
    absent = []
    for (reference, root), count in datasets.items():
        try:
            remedy = explain_absent(reference, None if root is None else Path(root))
        except SecurityNetError as error:
            remedy = f"{error.message} {error.hint or ''}".strip()
        if remedy is not None:
            absent.append(Absent(reference, count, remedy))
    for (library, install), count in packages.items():
        if not any(importlib.metadata.distributions(name=library)):
            absent.append(Absent(f"the package {library}", count, install))
    return sorted(absent, key=lambda item: (-item.targets, item.what))
