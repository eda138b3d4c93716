"""Measures of a stolen model, from predictions alone: how right it is, and how like the target.

All are taken on records that neither the surrogate nor, for the test part of a split, the target was trained on. Their
intervals tell what other such records would give for **this** surrogate; training another one varies on top.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement

BONETT_PRICE = "Bonett–Price, paired ratio"
NEWCOMBE_PAIRED = "Newcombe hybrid score, paired"


def measure(
    labels: NDArray[np.int64],
    target: NDArray[np.int64],
    surrogate: NDArray[np.int64],
    confidence: NDArray[np.floating],
    distances: NDArray[np.floating],
    *,
    level: float = 0.95,
) -> list[Measurement]:
    """Accuracy, its ratio to the target's, agreement, agreement on errors, and how like the posteriors are.

    - ``accuracy``: share of records that the surrogate classifies as their label (SecurityNet, section 3.1).
    - ``agreement``: share on which surrogate and target predict the same class (ibid.; ML-Doctor, section 5.2).
    - ``accuracy-ratio``: the surrogate's accuracy divided by the target's (SecurityNet, section 4.1).
    - ``agreement-on-errors``: share of the target's errors on which the surrogate makes the same error. A model of the
      same task that never saw the target agrees with it where both are right; this tells how much was *copied*.
    - ``calibration-gap``: see `calibration_gap`; a surrogate of posteriors whose confidence collapsed has a large one.
    - ``posterior-distance``: mean total-variation distance of its posteriors from the target's.
    - ``constant-agreement``: the agreement of a constant answer, the class that the target predicts most often.

    Args:
        labels: True classes, N.
        target: The target's predictions, N.
        surrogate: The surrogate's predictions, N.
        confidence: The surrogate's posterior of its prediction, N, in [0, 1].
        distances: Total-variation distance of its posteriors from the target's, N; NaN if those are hidden.
        level: Confidence level.

    Raises:
        ValueError: If there are no records, or lengths differ.
    """
    n = len(labels)
    if n == 0 or any(len(values) != n for values in (target, surrogate, confidence, distances)):
        raise ValueError("predictions of the same records, at least one, are needed")
    right, target_right = surrogate == labels, target == labels
    wrong = ~target_right
    commonest = int(np.bincount(target).max())
    return [
        rates.rate("accuracy", int(right.sum()), n, direction=Direction.LOWER, level=level),
        rates.rate("agreement", int((surrogate == target).sum()), n, direction=Direction.LOWER, level=level),
        ratio("accuracy-ratio", right, target_right, direction=Direction.LOWER, level=level),
        _on_errors(int((surrogate == target)[wrong].sum()), int(wrong.sum()), level),
        calibration_gap(confidence, right, level=level),
        mean_distance(distances, level=level),
        rates.rate("constant-agreement", commonest, n, direction=Direction.LOWER, level=level),
    ]


def transfer(
    fooled: NDArray[np.bool_], fooled_by_noise: NDArray[np.bool_], *, level: float = 0.95
) -> list[Measurement]:
    """How adversarial examples made on the surrogate fare on the target, against noise of the same size.

    Args:
        fooled: Whether the target misclassifies each adversarial example, N; of records that it classifies correctly.
        fooled_by_noise: Whether it misclassifies the same records under random noise of the same size, N.
        level: Confidence level.
    """
    n = len(fooled)
    if n == 0:
        note = "The target classifies no record correctly that could be attacked."
        return [
            missing("transfer", Direction.LOWER, level, note),
            missing("transfer-gain", Direction.LOWER, level, note),
        ]
    return [
        rates.rate("transfer", int(fooled.sum()), n, direction=Direction.LOWER, level=level),
        paired_difference("transfer-gain", fooled, fooled_by_noise, direction=Direction.LOWER, level=level),
    ]


def ratio(
    name: str,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    direction: Direction,
    level: float = 0.95,
) -> Measurement:
    """Ratio of two rates of the same records, with the interval of Bonett and Price (Statistics in Medicine 25, 2006).

    Args:
        name: Of the measurement.
        first: Successes of the numerator, N.
        second: Successes of the denominator, N.
        direction: Which way is good for the owner.
        level: Confidence level.

    Returns:
        Its value is None where the denominator has no success.
    """
    one, two = int(first.sum()), int(second.sum())
    n = len(first)
    if two == 0:
        return missing(name, direction, level, "The target is right on none of these records.", n)
    either = int((first | second).sum())
    apart = int((first ^ second).sum())
    z = float(stats.norm.ppf((1 + level) / 2))
    a = math.sqrt((apart + 2) / ((one + 1) * (two + 1)))
    b = math.sqrt((1 - (one + 1) / (either + 2)) / (one + 1))
    c = math.sqrt((1 - (two + 1) / (either + 2)) / (two + 1))
    adjusted = 2 * float(stats.norm.cdf(z * a / (b + c))) - 1
    (low_one, high_one), (low_two, high_two) = (rates.wilson(x, either, adjusted) for x in (one, two))
    value = one / two
    return Measurement(
        name=name,
        value=value,
        low=min(value, low_one / high_two),
        high=max(value, high_one / low_two),
        level=level,
        n=n,
        direction=direction,
        method=BONETT_PRICE,
    )


def paired_difference(
    name: str,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    direction: Direction,
    level: float = 0.95,
) -> Measurement:
    """Difference of two rates of the same records (Newcombe, Statistics in Medicine 17, 1998, method 10 for pairs).

    Args:
        name: Of the measurement.
        first: Successes of the first, N, at least one.
        second: Successes of the second, N.
        direction: Which way is good for the owner.
        level: Confidence level.
    """
    n = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    one, two = both + only_first, both + only_second
    margins = math.sqrt(one * two * (n - one)) * math.sqrt(n - two)
    product = float(both * neither - only_first * only_second)
    # Newcombe's continuity correction keeps a chance association from shortening the interval.
    product = max(product - n / 2, 0.0) if product > 0 else product
    phi = product / margins if margins else 0.0
    (low_one, high_one), (low_two, high_two) = (rates.wilson(x, n, level) for x in (one, two))
    p, q = one / n, two / n

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = p - q
    return Measurement(
        name=name,
        value=value,
        low=max(-1.0, value - distance(p - low_one, high_two - q)),
        high=min(1.0, value + distance(high_one - p, q - low_two)),
        level=level,
        n=n,
        direction=direction,
        method=NEWCOMBE_PAIRED,
    )


def calibration_gap(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, level: float = 0.95, name: str = "calibration-gap"
) -> Measurement:
    """How far mean confidence and accuracy are apart.

    The interval holds the sizes of all differences in the t interval of the mean difference; it starts at 0 if that
    contains 0.

    Args:
        confidence: Posterior of the prediction, N.
        right: Whether that is the label, N.
        level: Confidence level.
        name: Of the measurement.
    """
    gap = np.asarray(confidence, dtype=np.float64) - right
    low, high = _mean_interval(gap, level)
    inside = low <= 0 <= high
    return Measurement(
        name=name,
        value=abs(float(gap.mean())),
        low=0.0 if inside else min(abs(low), abs(high)),
        high=max(abs(low), abs(high)),
        level=level,
        n=len(gap),
        direction=Direction.HIGHER,
        method="t interval of the mean difference, folded at 0",
        note=f"Mean confidence {float(np.mean(confidence)):.3f}, accuracy {float(right.mean()):.3f}.",
    )


def mean_distance(
    distances: NDArray[np.floating], *, level: float = 0.95, name: str = "posterior-distance"
) -> Measurement:
    """Mean total-variation distance between posteriors, with a t interval.

    Args:
        distances: N, each in [0, 1]; NaN where the target's posteriors are hidden from its owner too.
        level: Confidence level.
        name: Of the measurement.
    """
    if np.isnan(distances).any():
        return missing(name, Direction.HIGHER, level, "The target answers with labels only.", len(distances))
    values = np.asarray(distances, dtype=np.float64)
    low, high = _mean_interval(values, level)
    value = float(values.mean())
    return Measurement(
        name=name,
        value=value,
        low=max(0.0, low),
        high=min(1.0, high) if value <= 1 else high,
        level=level,
        n=len(values),
        direction=Direction.HIGHER,
        method="t interval of a mean",
    )


def _mean_interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return -1.0, 1.0
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def missing(name: str, direction: Direction, level: float, note: str, n: int = 0) -> Measurement:
    """A measurement that these records cannot give."""
    return Measurement(name=name, value=None, level=level, n=n, direction=direction, method=rates.WILSON, note=note)


def _on_errors(same: int, errors: int, level: float) -> Measurement:
    name = "agreement-on-errors"
    if errors == 0:
        return missing(name, Direction.LOWER, level, "The target makes no errors on these records.")
    return rates.rate(name, same, errors, direction=Direction.LOWER, level=level)
