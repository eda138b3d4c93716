"""What the evaluation classifier of model inversion can judge: its accuracy on real images, and success relative to it.

A classifier that does not recognise real images does not recognise good reconstructions either. Its judgement would
clear every attack, so below a demonstrated accuracy there is no judgement.
"""

from __future__ import annotations

import numpy as np

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement


def judge_accuracy(recognised: int, count: int, *, level: float = 0.95) -> Measurement:
    """Compute ``judge-accuracy``: the share of real images, unseen by the classifier, that it recognises.

    Args:
        recognised: Number of images that it classifies as their label.
        count: Number of images, at least 1.
        level: Confidence level.
    """
    return rates.rate("judge-accuracy", recognised, count, direction=Direction.HIGHER, level=level)


def compute_chance_accuracy(num_classes: int, commonest: int, count: int) -> float:
    """Return the accuracy on real images that needs no look at them: guessing, or always the commonest class.

    Args:
        num_classes: Number of classes.
        commonest: Number of images of the commonest class; 0 if it is not known.
        count: Number of images, at least 1.
    """
    return max(1 / num_classes, commonest / count)


def is_blind(accuracy: Measurement, chance: float) -> bool:
    """Return whether the interval of the classifier's accuracy on real images includes chance or lies below it."""
    return accuracy.low is None or accuracy.low <= chance


def measure_accuracy_ratio(success: Measurement, judge: Measurement) -> Measurement:
    """Compute ``accuracy-ratio``: the success on reconstructions divided by the accuracy on real images.

    The interval is MOVER's for the ratio of two independent rates (Donner and Zou, "Closed-form confidence intervals
    for functions of the normal mean and standard deviation", 2012, section 2.2), from the intervals of both.

    Args:
        success: Share of reconstructions recognised as the requested class, with its interval.
        judge: Share of real images recognised, with an interval above 0.

    Returns:
        The ratio: 1 if reconstructions are recognised as often as real images.

    Raises:
        ValueError: If a rate has no value, or the interval of the second includes 0.
    """
    if success.value is None or success.low is None or success.high is None:
        raise ValueError("the first rate has no value")
    if judge.value is None or judge.low is None or judge.high is None or judge.low <= 0:
        raise ValueError("the interval of the second rate must lie above 0")
    value = success.value / judge.value
    low, high = _mover(success.value, success.low, success.high, judge.value, judge.low, judge.high)
    return Measurement(
        name="accuracy-ratio",
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=success.level,
        n=success.n,
        direction=success.direction,
        method=f"MOVER for the ratio of two rates; the first: {success.method}; the second: {judge.method}",
    )


def _mover(
    first: float, low_1: float, high_1: float, second: float, low_2: float, high_2: float
) -> tuple[float, float]:
    """Return the ends of MOVER's interval for first / second, where ``low_2`` is above 0."""
    product = first * second
    below, above = high_2 * (2 * second - high_2), low_2 * (2 * second - low_2)
    low = low_1 / high_2
    if below > 0:
        low = max(0.0, (product - np.sqrt(max(0.0, product**2 - low_1 * (2 * first - low_1) * below))) / below)
    return float(low), float((product + np.sqrt(max(0.0, product**2 - high_1 * (2 * first - high_1) * above))) / above)
