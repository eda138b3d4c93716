"""Models like one: of its dataset, family and task, near in size, accuracy and year."""

from __future__ import annotations

import numpy as np

from securitynet.catalog.schema import CatalogEntry
from securitynet.web.columns import UNKNOWN, Columns, Integers

WEIGHTS = {"dataset": 2.0, "family": 2.0, "task_type": 1.0, "architecture_type": 0.5, "purpose": 0.5}
_MOST_CANDIDATES = 20_000


def similar(columns: Columns, number: int, count: int = 6) -> Integers:
    """Row numbers of the models most like one, the nearest first.

    The distance is the sum of the weights of the codes in which they differ (half, where one is not known), and of
    differences in the logarithm of the parameters, in accuracy and in year. Only models that share its dataset or its
    family are looked at, of very many the first 20,000.

    Args:
        columns: Of the catalog.
        number: Row number of the model.
        count: Most to give.
    """
    place = int(np.searchsorted(columns.numbers, number))
    if place >= len(columns) or columns.numbers[place] != number:
        return columns.numbers[:0]
    own = {name: int(columns.facets[name].codes[place]) for name in WEIGHTS}
    shared = [columns.facets[name].codes == own[name] for name in ("dataset", "family") if own[name] != UNKNOWN]
    if not shared:
        return columns.numbers[:0]
    both = np.logical_and.reduce(shared)
    candidates = np.flatnonzero(both if both.sum() > count else np.logical_or.reduce(shared))
    candidates = candidates[candidates != place][:_MOST_CANDIDATES]
    distance = np.zeros(len(candidates))
    for name, weight in WEIGHTS.items():
        codes = columns.facets[name].codes[candidates]
        unknown = (codes == UNKNOWN) | (own[name] == UNKNOWN)
        distance += weight * np.where(unknown, 0.5, codes != own[name])
    for name, scale in (("parameters", 1.0), ("claimed_accuracy", 0.1), ("year", 5.0)):
        values = columns.numeric[name]
        mine, theirs = values[place], values[candidates]
        if name == "parameters":
            mine, theirs = np.log10(np.maximum(mine, 1)), np.log10(np.maximum(theirs, 1))
        apart = np.abs(theirs - mine) / scale
        distance += np.where(np.isfinite(apart), np.minimum(apart, 2), 0.5)
    nearest = np.argsort(distance, kind="stable")[:count]
    found: Integers = columns.numbers[candidates[nearest]]
    return found


def loading(entry: CatalogEntry, dataset: str | None) -> tuple[str, str] | None:
    """How to load a model: in Python, and on the command line; None if nothing says how."""
    if entry.reference is None or entry.head not in ("classifier", None):
        return None
    python = f'import securitynet\n\ntarget = securitynet.load_target("catalog:{entry.id}")\n'
    return python, f"securitynet assess catalog:{entry.id} --dataset {dataset or 'DATASET'} --out report"
