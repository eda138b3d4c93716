"""Rates over several trainings of one kind, with intervals that include the variance between the trainings.

Scores under the same trained model are not independent of each other. Korn and Graubard ("Confidence intervals for
proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24, 1998)
replace the number of records by an effective one, with which the exact interval has the variance that the differences
between the trainings show. It is reduced further because that variance is estimated from few trainings.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import rates, roc
from securitynet.records import Direction, Measurement

TPR_METHOD = "the wider of order statistics with Clopper–Pearson, and Korn–Graubard over trainings"
MEAN_METHOD = "intervals over records and Student's t over trainings, in quadrature"

FEWEST_TRAININGS = 2

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def choose_fpr(non_members: int, trainings: int, wanted: tuple[float, ...], level: float) -> float:
    """Return the lowest wanted FPR that non-members of several trainings resolve; the highest if they resolve none.

    Args:
        non_members: Scores of non-members in all trainings together.
        trainings: Number of trainings.
        wanted: False-positive rates, at least one, each in (0, 1).
        level: Confidence level.
    """
    tail = (1 + level) / 2
    few = float(scipy.stats.norm.ppf(tail) / scipy.stats.t.ppf(tail, max(trainings - 1, 1))) ** 2
    resolved = [fpr for fpr in sorted(wanted) if roc.resolves(int(non_members * few), fpr, level)]
    return resolved[0] if resolved else max(wanted)


def measure_mean_tpr(
    scores: Floats, is_member: Flags, judged: Flags, fpr: float, *, level: float = 0.95, name: str | None = None
) -> Measurement:
    """Compute the TPR at a low FPR on the same records in M trainings, with one threshold for all of them.

    The records are fixed: the interval is about further trainings of the same kind, not about further records.

    Args:
        scores: Score of each record in each training, M×N; higher means "more likely a member".
        is_member: Whether the training had the record, M×N.
        judged: Which of the scores count, M×N.
        fpr: The bound, in (0, 1).
        level: Confidence level.
        name: Name of the measurement; ``tpr@fpr=...`` by default.

    Returns:
        A measurement whose value is None if there are too few scores of non-members to resolve the FPR.

    Raises:
        ValueError: If a group is empty or a score is NaN.
    """
    name = name or f"tpr@fpr={fpr:g}"
    inside, outside = judged & is_member, judged & ~is_member
    members, non_members = scores[inside], scores[outside]
    roc.check(members, non_members)
    m, n = len(members), len(non_members)
    if not roc.resolves(n, fpr, level) or len(scores) < FEWEST_TRAININGS:
        return Measurement(
            name=name,
            value=None,
            level=level,
            n=m + n,
            direction=Direction.LOWER,
            method="none",
            note=f"not resolvable: a FPR of {fpr:g} takes {rates.count_draws(fpr, level):,} scores of non-members in "
            f"several trainings, there are {n:,} in {len(scores)}",
        )
    value = _tpr(members, non_members, fpr)
    rest = np.ones(len(scores), dtype=bool)
    without = []
    for number in range(len(scores)):
        rest[number] = False
        if inside[rest].any() and outside[rest].any():
            without.append(_tpr(scores[rest][inside[rest]], scores[rest][outside[rest]], fpr))
        rest[number] = True
    ends = [
        roc.compute_tpr_limits(members, non_members, fpr, level),
        _limits_over_trainings(value, m, np.array(without), level),
    ]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=m + n,
        direction=Direction.LOWER,
        method=TPR_METHOD,
    )


def _tpr(members: Floats, non_members: Floats, fpr: float) -> float:
    """The share of members above the lowest threshold whose FPR is at most the bound."""
    n = len(non_members)
    return float((members > np.sort(non_members)[n - 1 - max(roc.count_allowed(fpr, n), 0)]).mean())


def _limits_over_trainings(rate: float, count: int, without: Floats, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval with the effective number of records.

    Args:
        rate: The rate in all trainings.
        count: Number of records that it is a share of.
        without: The rate without each of the trainings in turn, M; its jackknife variance includes that of the
            threshold.
        level: Confidence level.
    """
    trainings, tail = len(without), (1 + level) / 2
    if trainings < FEWEST_TRAININGS:
        return 0.0, 1.0
    variance = (trainings - 1) / trainings * float(((without - without.mean()) ** 2).sum())
    effective = min(count, rate * (1 - rate) / variance) if variance > 0 and 0 < rate < 1 else count
    effective *= float(scipy.stats.norm.ppf(tail) / scipy.stats.t.ppf(tail, trainings - 1)) ** 2
    effective = max(effective, 1.0)
    low, high = rates.compute_clopper_pearson(rate * effective, effective, level)
    return float(low), float(high)


def measure_mean_rate(name: str, hits: Floats, n: int, *, direction: Direction, level: float = 0.95) -> Measurement:
    """Compute the mean over M trainings of a rate of the same n records, such as the test accuracy.

    Args:
        name: Name of the measurement.
        hits: Successes in each training, M.
        n: Number of records.
        direction: Which direction is good for the owner.
        level: Confidence level.
    """
    values = hits / n
    mean = float(values.mean())
    low, high = (float(end) for end in rates.compute_clopper_pearson(mean * n, n, level))
    return _mean(name, values, (mean - low, high - mean), n, direction, level)


def measure_mean_auc(name: str, groups: list[tuple[Floats, Floats]], *, level: float = 0.95) -> Measurement:
    """Compute the mean AUC over M trainings of an attack on the same records.

    Args:
        name: Name of the measurement.
        groups: For each training, the scores of members and of non-members.
        level: Confidence level.
    """
    values = np.array([roc.compute_auc(*group) for group in groups])
    ends = np.array([roc.compute_auc_limits(*group, level) for group in groups])
    reach = np.abs(ends - values[:, None]).mean(axis=0)
    return _mean(name, values, (float(reach[0]), float(reach[1])), sum(map(len, groups[0])), Direction.LOWER, level)


def _mean(
    name: str, values: Floats, reach: tuple[float, float], n: int, direction: Direction, level: float
) -> Measurement:
    """Join an interval over records with that over trainings."""
    count, mean = len(values), float(values.mean())
    between = 0.0
    if count >= FEWEST_TRAININGS:
        between = float(scipy.stats.t.ppf((1 + level) / 2, count - 1) * values.std(ddof=1) / math.sqrt(count))
    return Measurement(
        name=name,
        value=mean,
        low=max(0.0, mean - math.hypot(reach[0], between)),
        high=min(1.0, mean + math.hypot(reach[1], between)),
        level=level,
        n=n,
        direction=direction,
        method=MEAN_METHOD,
    )
