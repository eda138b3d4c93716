"""Exposure of groups of records, such as classes and the values of attributes, with correction for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field

from securitynet.metrics import clusters, rates, roc
from securitynet.records import Direction, Measurement, Record

FEWEST = 5
"""Smallest number of members, and of non-members, of a group that is compared with the others."""

Column = tuple[NDArray[np.int64], Sequence[str]]
"""Value of each record, N, -1 where it is not known; and the names of the values."""


class GroupExposure(Record):
    """How far the members of a group are identified, compared with all other members.

    Attributes:
        by: Name of the column: ``class`` or an attribute.
        name: Name of the value.
        members: Number of members in the group.
        non_members: Number of non-members.
        identified: Share of its members that are identified at the common threshold.
        accused: Share of its non-members that score above that threshold.
        others: Share of the members of all other groups of the column that are identified.
        auc: AUC among the records of the group.
        p_value: Of "its members are identified as often as the others", adjusted for all groups of all columns.
    """

    by: str
    name: str
    members: int
    non_members: int
    identified: Measurement
    accused: Measurement
    others: float
    auc: Measurement
    p_value: float = Field(ge=0, le=1)

    def differs(self, level: float) -> bool:
        """Whether its members are identified more or less often than others, at a confidence level for all groups."""
        return self.p_value <= 1 - level


def compare_exposed_groups(
    scores: roc.Scores,
    is_member: NDArray[np.bool_],
    threshold: float,
    columns: Mapping[str, Column],
    *,
    level: float = 0.95,
) -> list[GroupExposure]:
    """Compare the groups of each column, the most exposed first.

    A group is tested by Fisher's exact test (two-sided) against all other members whose value is known; Holm's method
    adjusts the p-values for all groups of all columns, and the intervals hold for all of them at once (Bonferroni).
    Groups with fewer than `FEWEST` members or non-members are left out, and so are columns with one group.

    Args:
        scores: Scores, N; higher means "more likely a member".
        is_member: Whether each record is a member, N.
        threshold: Records above it are called members.
        columns: By name.
        level: Confidence level, for all groups together.
    """
    above = scores > threshold
    parts = []
    for by, (values, names) in columns.items():
        sizes = {value: values == value for value in range(len(names))}
        usable = [v for v, part in sizes.items() if min((part & is_member).sum(), (part & ~is_member).sum()) >= FEWEST]
        known = (values >= 0) & is_member
        if len(usable) > 1:
            parts += [(by, names[value], sizes[value], known & ~sizes[value]) for value in usable]
    if not parts:
        return []
    raw = []
    for _, _, part, rest in parts:
        inside = part & is_member
        table = [[(above & inside).sum(), (~above & inside).sum()], [(above & rest).sum(), (~above & rest).sum()]]
        raw.append(float(scipy.stats.fisher_exact(table).pvalue))
    adjusted = clusters.correct_for_clusters(np.array(raw), len(raw))
    each = 1 - (1 - level) / len(parts)
    tested = []
    for (by, name, part, rest), p_value in zip(parts, adjusted, strict=True):
        members, non_members = part & is_member, part & ~is_member
        tested.append(
            GroupExposure(
                by=by,
                name=name,
                members=int(members.sum()),
                non_members=int(non_members.sum()),
                identified=_rate("identified", above[members], each, level, len(parts)),
                accused=_rate("accused", above[non_members], each, level, len(parts)),
                others=float(above[rest].mean()),
                auc=_widen(roc.measure_auc(scores[members], scores[non_members], level=each), level, len(parts)),
                p_value=float(p_value),
            )
        )
    return sorted(tested, key=lambda group: -(group.identified.value or 0.0))


def _rate(name: str, above: NDArray[np.bool_], each: float, level: float, among: int) -> Measurement:
    measured = rates.rate(name, int(above.sum()), len(above), direction=Direction.LOWER, level=each)
    return _widen(measured, level, among)


def _widen(measured: Measurement, level: float, among: int) -> Measurement:
    """State the level that the intervals of all groups have together."""
    return measured.model_copy(update={"level": level, "method": f"{measured.method}; all {among} groups at once"})
