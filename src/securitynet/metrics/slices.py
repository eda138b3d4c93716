"""The success of an attack on parts of the records: by class, by correctness of the prediction, by margin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import roc
from securitynet.records import Direction, Measurement, Record

FEWEST = 5
"""Smallest number of members, and of non-members, for the AUC of a slice."""

MARGIN_PARTS = 4

By = Literal["class", "correctness", "margin"]


class Slice(Record):
    """The success of the attack on one part of the records.

    Attributes:
        by: Criterion that divides the records.
        name: Name of the part: a class, ``correct`` or ``wrong``, or a range of margins.
        members: Number of members in it.
        non_members: Number of non-members in it.
        auc: AUC within this part; its value is None with fewer than `FEWEST` members or non-members.
        tpr: Share of its members that are called members at the attack's threshold; None without members or threshold.
        fpr: Share of its non-members that are called members; None without non-members or threshold.
    """

    by: By
    name: str
    members: int
    non_members: int
    auc: Measurement
    tpr: float | None
    fpr: float | None


def compute_slices(
    scores: roc.Scores,
    is_member: NDArray[np.bool_],
    *,
    labels: NDArray[np.int64] | None = None,
    correct: NDArray[np.bool_] | None = None,
    margin: NDArray[np.float64] | None = None,
    class_names: Sequence[str] | None = None,
    called: NDArray[np.bool_] | None = None,
    level: float = 0.95,
) -> list[Slice]:
    """Compute the slices for which data are given, in the order correctness, margin, class.

    Args:
        scores: Scores, N, without NaN; higher means "more likely a member".
        is_member: True membership, N.
        labels: True classes, N.
        correct: Whether the target's prediction is the label, N.
        margin: Logit of the true class minus the largest other, N; divided into quarters with equally many records.
        class_names: Names of the classes; their numbers by default.
        called: Whether the adversary calls the record a member, N.
        level: Confidence level of the intervals; of those of classes it holds for all at once (Bonferroni), so that
            the extremes among them can be picked.
    """
    result = []
    parts = list(_parts(labels, correct, margin, class_names))
    classes = sum(
        by == "class" and min((part & is_member).sum(), (part & ~is_member).sum()) >= FEWEST for by, _, part in parts
    )
    for by, name, part in parts:
        members, non_members = scores[part & is_member], scores[part & ~is_member]
        result.append(
            Slice(
                by=by,
                name=name,
                members=len(members),
                non_members=len(non_members),
                auc=_auc(members, non_members, level, classes if by == "class" else 1),
                tpr=_share(called, part & is_member),
                fpr=_share(called, part & ~is_member),
            )
        )
    return result


def select_extremes(slices_: Sequence[Slice], by: By, count: int = 3) -> tuple[list[Slice], list[Slice]]:
    """Return the most and the least exposed slices of a kind by AUC, at most ``count`` of each and none in both lists.

    Args:
        slices_: All slices.
        by: Criterion of the slices to choose from.
        count: Largest number of slices in each list.
    """
    ranked = sorted((s for s in slices_ if s.by == by and s.auc.value is not None), key=lambda s: -(s.auc.value or 0))
    most = ranked[:count]
    return most, ranked[max(len(ranked) - count, len(most)) :][::-1]


def _parts(
    labels: NDArray[np.int64] | None,
    correct: NDArray[np.bool_] | None,
    margin: NDArray[np.float64] | None,
    class_names: Sequence[str] | None,
) -> Iterator[tuple[By, str, NDArray[np.bool_]]]:
    if correct is not None:
        yield "correctness", "correct", correct
        yield "correctness", "wrong", ~correct
    if margin is not None:
        inner = np.unique(np.quantile(margin, np.linspace(0, 1, MARGIN_PARTS + 1)[1:-1]))
        edges = [-np.inf, *inner.tolist(), np.inf]
        for low, high in itertools.pairwise(edges):
            part = (margin >= low) & (margin < high)
            if part.any():  # equal margins can leave a quarter empty
                yield "margin", _range(low, high), part
    if labels is not None:
        for label in range(len(class_names)) if class_names is not None else np.unique(labels).tolist():
            yield "class", str(label) if class_names is None else class_names[label], labels == label


def _range(low: float, high: float) -> str:
    if np.isneginf(low) and np.isposinf(high):
        return "all"
    if np.isneginf(low):
        return f"below {high:.3g}"
    return f"at least {low:.3g}" if np.isposinf(high) else f"{low:.3g} to {high:.3g}"


def _auc(members: roc.Scores, non_members: roc.Scores, level: float, among: int) -> Measurement:
    if min(len(members), len(non_members)) >= FEWEST:
        auc = roc.measure_auc(members, non_members, level=1 - (1 - level) / among)
        method = f"{auc.method}; all {among} classes at once" if among > 1 else auc.method
        return auc.model_copy(update={"level": level, "method": method})
    return Measurement(
        name="auc",
        value=None,
        level=level,
        n=len(members) + len(non_members),
        direction=Direction.LOWER,
        method="none",
        note=f"not resolvable: fewer than {FEWEST} members or non-members",
    )


def _share(called: NDArray[np.bool_] | None, part: NDArray[np.bool_]) -> float | None:
    return None if called is None or not part.any() else float(called[part].mean())
