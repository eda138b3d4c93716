"""Models like one: of its dataset, family and task, near in size, accuracy and year."""

from __future__ import annotations

import numpy as np

from securitynet.web.column_store import UNKNOWN, Columns

WEIGHTS = {"dataset": 2.0, "family": 2.0, "task_type": 1.0, "architecture_type": 0.5, "purpose": 0.5}
_MOST_CANDIDATES = 20_000


def find_similar(columns: Columns, number: int, count: int = 6) -> list[int]:
    """Find the models most like one: their row numbers, the nearest first.

    The distance is the sum of the weights of the codes in which they differ (half, where one is not known), and of
    differences in the logarithm of the parameters, in accuracy and in year. Only models that share its dataset or its
    family are looked at, of very many the first 20,000.

    Args:
        columns: Of the catalog.
        number: Row number of the model.
        count: Most models to return.
    """
    [row] = columns.find_rows(np.array([number]))
    if row < 0:
        return []
    own = {name: int(columns.facets[name].codes[row]) for name in WEIGHTS}
    shared = [columns.facets[name].codes == own[name] for name in ("dataset", "family") if own[name] != UNKNOWN]
    if not shared:
        return []
    candidates = np.flatnonzero(shared[0] & shared[-1])
    if len(candidates) <= count:
        candidates = np.flatnonzero(shared[0] | shared[-1])
    candidates = candidates[candidates != row][:_MOST_CANDIDATES]
    distance = np.zeros(len(candidates))
    for name, weight in WEIGHTS.items():
        codes = np.arange(columns.facets[name].combinations)
        unknown = (codes == UNKNOWN) | (own[name] == UNKNOWN)
        distance += (weight * np.where(unknown, 0.5, codes != own[name])).take(columns.facets[name].codes[candidates])
    for name, scale in (("parameters", 1.0), ("claimed_accuracy", 0.1), ("year", 5.0)):
        if name not in columns.numeric:
            continue  # as far from one as from another
        mine, theirs = columns.numeric[name][row], columns.numeric[name][candidates]
        if name == "parameters":
            mine, theirs = np.log10(np.maximum(mine, 1)), np.log10(np.maximum(theirs, 1))
        apart = np.abs(theirs - mine) / scale
        distance += np.where(np.isfinite(apart), np.minimum(apart, 2), 0.5)
    if len(distance) > count:
        near = np.flatnonzero(distance <= np.partition(distance, count - 1)[count - 1])
        candidates, distance = candidates[near], distance[near]
    nearest = candidates[np.argsort(distance, kind="stable")[:count]]
    numbers: list[int] = columns.numbers[nearest].tolist()
    return numbers
