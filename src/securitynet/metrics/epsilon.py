"""A lower bound on epsilon of differential privacy, from how well an attack tells members from non-members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import roc
from securitynet.metrics.defaults import DEFAULT_DELTA
from securitynet.metrics.former_names import forward_names
from securitynet.metrics.rates import compute_clopper_pearson
from securitynet.records import Direction, Measurement

MOST_CANDIDATES = 2000
"""Thresholds that are tried at most when one is tuned: evenly spaced in rank, and all of the extreme ones."""


def bound_epsilon(
    hits: NDArray[np.int64] | int,
    members: int,
    false_alarms: NDArray[np.int64] | int,
    non_members: int,
    *,
    delta: float = DEFAULT_DELTA,
    level: float = 0.95,
) -> NDArray[np.float64]:
    """The epsilon that these counts rule out anything below.

    Under (ε, δ)-differential privacy every test keeps TPR ≤ e^ε·FPR + δ and 1 − FPR ≤ e^ε·(1 − TPR) + δ (Kairouz, Oh
    and Viswanath, 2015, theorem 2.1). TPR is replaced by its lower and FPR by its upper one-sided Clopper–Pearson
    limit, each at 1 − (1 − level) / 2, so both hold at once with probability of at least ``level``; the two
    inequalities use the same two limits, and the larger epsilon counts.

    Args:
        hits: Members called members, at one threshold or at several.
        members: In all.
        false_alarms: Non-members called members, at the same thresholds.
        non_members: In all.
        delta: In [0, 1).
        level: Confidence of the bound, in (0, 1).

    Returns:
        A bound per threshold, in nats, at least 0.
    """
    hits, false_alarms = np.asarray(hits), np.asarray(false_alarms)
    tpr, _ = compute_clopper_pearson(hits, members, level)
    _, fpr = compute_clopper_pearson(false_alarms, non_members, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_hits = np.log(np.maximum(tpr - delta, 0)) - np.log(fpr)
        by_rejections = np.log(np.maximum(1 - fpr - delta, 0)) - np.log(1 - tpr)
    return np.asarray(np.maximum(np.maximum(by_hits, by_rejections), 0.0), dtype=np.float64)


def find_best_epsilon_threshold(
    members: roc.Scores, non_members: roc.Scores, *, delta: float = DEFAULT_DELTA, level: float = 0.95
) -> float:
    """The threshold ("at least" means member) with the highest `bound_epsilon` on these records. Judge it on others.

    The bounds that are compared have their error probability divided by the number of thresholds: else one that a few
    records in a tail favour by chance would win, and hold nothing on the others.

    Args:
        members: Scores of members; higher means "more likely a member".
        non_members: Scores of non-members.
        delta: Probability that the bound on epsilon does not hold, in (0, 1).
        level: Confidence level.
    """
    roc.check(members, non_members)
    distinct = np.unique(np.concatenate([members, non_members]))
    if len(distinct) > MOST_CANDIDATES:
        ends = MOST_CANDIDATES // 4
        middle = np.linspace(ends, len(distinct) - ends - 1, MOST_CANDIDATES - 2 * ends).astype(np.int64)
        distinct = np.concatenate([distinct[:ends], distinct[np.unique(middle)], distinct[-ends:]])
    hits = len(members) - np.searchsorted(np.sort(members), distinct, side="left")
    false_alarms = len(non_members) - np.searchsorted(np.sort(non_members), distinct, side="left")
    strict = 1 - (1 - level) / len(distinct)
    bounds = bound_epsilon(hits, len(members), false_alarms, len(non_members), delta=delta, level=strict)
    return float(distinct[int(bounds.argmax())])


def measure_lower_bound(
    scores: roc.Scores,
    is_member: NDArray[np.bool_],
    *,
    tuning: NDArray[np.bool_] | None = None,
    delta: float = DEFAULT_DELTA,
    level: float = 0.95,
    seed: int = 0,
) -> Measurement:
    """Epsilon is at least this, with confidence ``level``.

    The threshold is chosen on some records and judged on others, so the bound needs no correction for the many
    thresholds that were tried. It speaks of the records at hand, taken as independent draws: they share one training
    run, so it is an estimate of what this model leaks, not a formal audit of the training algorithm (for that see
    Steinke, Nasr and Jagielski, "Privacy auditing with one training run", 2023).

    Args:
        scores: N, higher meaning "more likely a member".
        is_member: N.
        tuning: N; the records on which the threshold is chosen. A random half of each group by default, also where
            those given lack one of the groups.
        delta: In [0, 1).
        level: Confidence of the bound.
        seed: Of the random halves.

    Returns:
        A measurement whose ``low`` and ``high`` are its value: the bound is itself the end of a one-sided interval. Its
        value is None if a group is too small to be divided.
    """
    roc.check(scores[is_member], scores[~is_member])
    name = f"epsilon-lower-bound@delta={delta:g}"
    chosen_on = "on the records that the adversary knows"
    if tuning is None or not _has_both(tuning, is_member) or not _has_both(~tuning, is_member):
        tuning = _halves(is_member, seed)
        chosen_on = "on a random half of the records"
    members, non_members = scores[is_member & ~tuning], scores[~is_member & ~tuning]
    n = len(members) + len(non_members)
    if not _has_both(tuning, is_member) or not _has_both(~tuning, is_member):
        return Measurement(
            name=name,
            value=None,
            level=level,
            n=n,
            direction=Direction.LOWER,
            method="none",
            note="not resolvable: it needs two members and two non-members, to choose a threshold and to judge it",
        )
    threshold = find_best_epsilon_threshold(
        scores[is_member & tuning], scores[~is_member & tuning], delta=delta, level=level
    )
    hits, false_alarms = int((members >= threshold).sum()), int((non_members >= threshold).sum())
    value = float(bound_epsilon(hits, len(members), false_alarms, len(non_members), delta=delta, level=level))
    return Measurement(
        name=name,
        value=value,
        low=value,
        high=value,
        level=level,
        n=n,
        direction=Direction.LOWER,
        method=f"one-sided Clopper–Pearson limits of TPR and FPR; threshold chosen {chosen_on}, judged on the others",
        note="a lower bound: the attack shows at least this much, treating records as independent",
    )


def _has_both(part: NDArray[np.bool_], is_member: NDArray[np.bool_]) -> bool:
    return bool((part & is_member).any() and (part & ~is_member).any())


def _halves(is_member: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(is_member), dtype=bool)
    for group in (np.flatnonzero(is_member), np.flatnonzero(~is_member)):
        chosen[generator.permutation(group)[: len(group) // 2]] = True
    return chosen


if not TYPE_CHECKING:  # checkers of types know the present names only
    __getattr__ = forward_names(
        __name__,
        {
            "bound": "bound_epsilon",
            "best_threshold": "find_best_epsilon_threshold",
            "lower_bound": "measure_lower_bound",
        },
    )
