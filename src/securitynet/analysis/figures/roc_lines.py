"""The curves of a ROC figure, and which of their points are drawn; needs none of the libraries that draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import roc as metrics
from securitynet.metrics.roc import Curve

LEVEL = 0.95
"""Confidence level of the bands."""

MOST_POINTS = 400
"""Most points of a drawn curve. More could not be seen, and the page would grow with the dataset."""


@dataclass(frozen=True, eq=False)
class RocLine:
    """One curve of a figure.

    Attributes:
        curve: All its points.
        members: Members behind it.
        non_members: Non-members behind it; they resolve no FPR below about 3.7 / ``non_members``.
        ink: Number of its colour.
        dash: Number of its dashes.
    """

    curve: Curve
    members: int
    non_members: int
    ink: int
    dash: int

    @property
    def floor(self) -> float:
        """The lowest FPR that can be resolved."""
        return metrics.find_lowest_resolved(self.non_members, LEVEL)

    def limits(self, fprs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Intervals of the TPR; see `securitynet.metrics.roc.compute_tpr_limits`, which takes only ranks.

        Args:
            fprs: False-positive rates, F, in (0, 1).

        Returns:
            Lower and upper ends, F.
        """
        place = -np.arange(len(self.curve.fpr), dtype=np.float64)[1:]
        members = np.repeat(place, np.rint(np.diff(self.curve.tpr) * self.members).astype(np.int64))
        others = np.repeat(place, np.rint(np.diff(self.curve.fpr) * self.non_members).astype(np.int64))
        ends = [metrics.compute_tpr_limits(members, others, float(fpr), LEVEL) for fpr in fprs]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def read_tpr_at(curve: Curve, fpr: float) -> float:
    """TPR at the best threshold whose FPR is at most ``fpr``, as the curve is drawn."""
    return float(curve.tpr[np.searchsorted(curve.fpr, fpr + 1e-12, side="right") - 1])


def thin_curve(curve: Curve, keep: Sequence[float] = (), most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Indices of the points that draw the curve: a part of its own points, none moved.

    Points inside a straight run are dropped first. If too many are left, those stay that hold at FPRs spaced evenly in
    logarithm, and evenly, so that every corner at the lowest FPRs stays.

    Args:
        curve: Of any length.
        keep: FPRs at which the thinned curve must have the same step as the whole one.
        most: Points to keep at most; corners at ``keep`` count among them.
    """
    fpr, tpr = curve.fpr, curve.tpr
    across, up = np.diff(fpr), np.diff(tpr)
    inside = (across[:-1] == 0) & (across[1:] == 0) | (up[:-1] == 0) & (up[1:] == 0)
    corners = np.concatenate([[0], np.flatnonzero(~inside) + 1, [len(fpr) - 1]]).astype(np.int64)
    if len(corners) <= most:
        return np.unique(corners)
    room = most - 2 - len(keep) - 1
    lowest = fpr[fpr > 0].min()
    wanted = np.concatenate([np.geomspace(lowest, 1, room // 2), np.linspace(0, 1, room - room // 2), list(keep)])
    held = np.searchsorted(fpr[corners], wanted + 1e-12, side="right") - 1
    last_at_zero = np.searchsorted(fpr[corners], 0.0, side="right") - 1
    return np.unique(corners[np.concatenate([[0, last_at_zero, len(corners) - 1], held])])
