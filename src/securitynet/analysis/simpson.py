"""Correlations within groups: what is left when differences between groups, such as datasets, are taken away.

Models of one dataset are alike in accuracy and in what attacks reach. Pooled over datasets, two quantities can go
together although within every dataset they go against each other (Simpson's paradox), so a correlation is taken within
groups, and groups that contradict each other are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis.statistics import FEWEST


@dataclass(frozen=True)
class CorrelationInGroup:
    """The correlation in one group.

    Attributes:
        group: Its name.
        n: Models that have both values.
        r: Pearson's correlation of them.
    """

    group: str
    n: int
    r: float


def correlate_within_datasets(
    x: NDArray[np.floating], y: NDArray[np.floating], codes: NDArray[np.integer], names: dict[int, str]
) -> list[CorrelationInGroup]:
    """Pearson's correlation in each group that has enough models, the largest group first.

    Args:
        x: N values.
        y: N values.
        codes: N, the group of each, from 0.
        names: Number of a group -> its name; groups without one are left out.
    """
    within = []
    # Sorted once instead of searched for each group; numbers of 16 bits are sorted in linear time.
    small = codes.astype(np.uint16) if len(codes) and codes.max() < 1 << 16 else codes
    order = np.argsort(small, kind="stable")
    starts = np.searchsorted(small[order], np.arange(max(names, default=-1) + 2))
    for code, name in names.items():
        rows = order[starts[code] : starts[code + 1]]
        a, b = x[rows], y[rows]
        if len(a) >= FEWEST and np.ptp(a) > 0 and np.ptp(b) > 0:
            within.append(CorrelationInGroup(name, len(a), float(np.corrcoef(a, b)[0, 1])))
    return sorted(within, key=lambda group: (-group.n, group.group))


def describe_mixed_signs(groups: Iterable[tuple[str, float]], pooled: float | None = None) -> str | None:
    """A sentence that says which groups contradict each other, or the pooled value; None if none does.

    Args:
        groups: Name and correlation of each group.
        pooled: The correlation over all models, where one is shown or could be computed by a reader.
    """
    known = [(name, r) for name, r in groups if np.isfinite(r)]
    positive = [name for name, r in known if r > 0]
    negative = [name for name, r in known if r < 0]
    if positive and negative:
        return f"The signs differ: positive in {_list(positive)}, negative in {_list(negative)}."
    if pooled is not None and known and np.isfinite(pooled) and pooled * known[0][1] < 0:
        sign = "negative" if negative else "positive"
        return (
            f"Pooled over groups the correlation would be {pooled:+.3f}, though it is {sign} in every group: that "
            "comes from differences between the groups."
        )
    return None


def _list(names: list[str], most: int = 6) -> str:
    shown = names[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
