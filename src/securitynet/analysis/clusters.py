"""Security models by their accuracy: the low-performing and the high-performing cluster of SecurityNet, or one of them.

SecurityNet (sections 2.3 and 4.1) sees two clusters of security models on CIFAR-10: one whose accuracy is far below
that of benchmark models, and one that comes close to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas

from securitynet.analysis import frames
from securitynet.analysis.quantities import TARGET_ACCURACY
from securitynet.catalog.compare import find_clusters

NEAR = 0.10
"""A single cluster counts as high-performing if its mean is at most this far below the benchmark models' mean."""


@dataclass(frozen=True, eq=False)
class FrameClusters:
    """The clusters of a frame.

    Attributes:
        cluster_of: Case -> ``benchmark``, ``low`` or ``high``; cases of unknown purpose or accuracy are left out.
        ranges: ``low`` and ``high`` -> the lowest and the highest accuracy; only those that exist.
        models: How many security models have an accuracy.
    """

    cluster_of: dict[str, str]
    ranges: dict[str, tuple[float, float]]
    models: int

    def describe_missing(self) -> str:
        """What is missing for the paper's comparison, in words; empty if both clusters are there."""
        absent = [name for name in ("low", "high") if name not in self.ranges]
        if not absent or not self.models:
            return "" if self.models else "there are no security models"
        if len(absent) == 2:
            return "no benchmark model shows whether the security models are low- or high-performing"
        ((name, (low, high)),) = self.ranges.items()
        return (
            f"there is no {absent[0]}-performing cluster: the {self.models} security models form one, the "
            f"{name}-performing one, with accuracies of {100 * low:.0f} to {100 * high:.0f}%"
        )


def cluster_models(tidy: pandas.DataFrame) -> FrameClusters:
    """Find the clusters of security models, which should be of one dataset.

    Args:
        tidy: Tidy frame.
    """
    wide = frames.widen(tidy, {"_accuracy": TARGET_ACCURACY})
    wide = wide[wide["_accuracy"].notna()].assign(id=lambda rows: rows["case"])
    benchmark = wide[wide["purpose"] == "benchmark"]
    security = wide[wide["purpose"] == "security"]
    cluster_of = dict.fromkeys(benchmark["case"], "benchmark")
    if security.empty:
        return FrameClusters(cluster_of, {}, 0)
    groups, members = find_clusters(security, seed=0)
    if len(groups) > 1:
        names = ["low", "high"]
    elif benchmark.empty:
        names = []
    else:
        names = ["high" if groups[0].mean > benchmark["_accuracy"].mean() - NEAR else "low"]
    cluster_of |= {case: names[number] for case, number in members.items() if names}
    ranges = {name: (group.low, group.high) for name, group in zip(names, groups, strict=False)}
    return FrameClusters(cluster_of, ranges, len(security))
