"""Metrics of a stolen model, from predictions alone: its accuracy, and its similarity to the target.

They are computed on records that neither the surrogate nor, for the test part of a split, the target was trained on.
Their intervals cover the choice of these records for **this** surrogate, not the variation between surrogates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import paired, rates
from securitynet.records import Direction, Measurement

RATIO = "MOVER for a paired ratio with Clopper–Pearson limits"


def measure_stealing(
    labels: NDArray[np.int64],
    target: NDArray[np.int64],
    surrogate: NDArray[np.int64],
    confidence: NDArray[np.floating],
    distances: NDArray[np.floating],
    *,
    level: float = 0.95,
) -> list[Measurement]:
    """Compute accuracy, its ratio to the target's, agreement, agreement on errors, and similarity of the posteriors.

    - ``accuracy``: share of records that the surrogate classifies as their label (SecurityNet, section 3.1).
    - ``agreement``: share on which surrogate and target predict the same class (ibid.; ML-Doctor, section 5.2).
    - ``accuracy-ratio``: the surrogate's accuracy divided by the target's (SecurityNet, section 4.1).
    - ``agreement-on-errors``: share of the target's errors on which the surrogate makes the same error. A model of the
      same task that never saw the target agrees with it where both are right; this shows how much was *copied*.
    - ``calibration-gap``: see `measure_calibration_gap`; it is large for a surrogate whose confidence collapsed.
    - ``posterior-distance``: mean total-variation distance of its posteriors from the target's.
    - ``constant-agreement``: the agreement of a constant prediction, the class that the target predicts most often.

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
        measure_ratio("accuracy-ratio", right, target_right, direction=Direction.LOWER, level=level),
        _on_errors(int((surrogate == target)[wrong].sum()), int(wrong.sum()), level),
        measure_calibration_gap(confidence, right, level=level),
        measure_mean_distance(distances, level=level),
        rates.rate("constant-agreement", commonest, n, direction=Direction.LOWER, level=level),
    ]


def measure_queried_share(queried: NDArray[np.int64], rest: int, *, level: float = 0.95) -> Measurement:
    """Share of the images to be judged that were queried, and are left out.

    Args:
        queried: How many were queried with the same pixels, and with nearly the same, 2.
        rest: How many were not.
        level: Confidence level.
    """
    count = int(queried.sum())
    share = rates.rate("queried-share", count, count + rest, direction=Direction.LOWER, level=level)
    return share.with_notes(
        f"{count:,} judged images had been queried, {int(queried[0]):,} with the same pixels and {int(queried[1]):,} "
        "with nearly the same; they are left out of the other measures."
    )


def measure_transfer(
    fooled: NDArray[np.bool_], fooled_by_noise: NDArray[np.bool_], *, level: float = 0.95
) -> list[Measurement]:
    """Compare adversarial examples made on the surrogate, tried on the target, with noise of the same size.

    Args:
        fooled: Whether the target misclassifies each adversarial example, N; of records that it classifies correctly.
        fooled_by_noise: Whether it misclassifies the same records under random noise of the same size, N.
        level: Confidence level.
    """
    n = len(fooled)
    if n == 0:
        note = "The target classifies no record correctly, so none can be attacked."
        return [
            make_missing("transfer", Direction.LOWER, level, note),
            make_missing("transfer-gain", Direction.LOWER, level, note),
        ]
    return [
        rates.rate("transfer", int(fooled.sum()), n, direction=Direction.LOWER, level=level),
        paired.measure_paired_difference(
            "transfer-gain", fooled, fooled_by_noise, direction=Direction.LOWER, level=level
        ),
    ]


def measure_ratio(
    name: str,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    direction: Direction,
    level: float = 0.95,
) -> Measurement:
    """Compute the ratio of two rates of the same records; for the interval see `rates.compute_ratio_interval`.

    Args:
        name: Name of the measurement.
        first: Successes of the numerator, N.
        second: Successes of the denominator, N.
        direction: Which direction is good for the owner.
        level: Confidence level.

    Returns:
        The measurement; its value is None if the denominator is 0.
    """
    one, two = int(first.sum()), int(second.sum())
    n = len(first)
    if two == 0:
        return make_missing(name, direction, level, "The target is right on none of these records.", n)
    both, either = int((first & second).sum()), int((first | second).sum())
    low, high = map(float, rates.compute_ratio_interval(both, one - both, two - both, n - either, level))
    value = one / two
    return Measurement(
        name=name,
        value=value,
        low=min(value, low),
        high=max(value, high),
        level=level,
        n=n,
        direction=direction,
        method=RATIO,
    )


def measure_calibration_gap(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, level: float = 0.95, name: str = "calibration-gap"
) -> Measurement:
    """Compute the absolute difference between mean confidence and accuracy.

    The interval is that of the mean difference (`rates.compute_bounded_mean`, between -1 and 1), folded at 0.

    Args:
        confidence: Posterior of the prediction, N.
        right: Whether the prediction is correct, N.
        level: Confidence level.
        name: Name of the measurement.
    """
    gap = np.asarray(confidence, dtype=np.float64) - right
    low, high = map(float, rates.compute_bounded_mean(gap, (-1.0, 1.0), level))
    inside = low <= 0 <= high
    return Measurement(
        name=name,
        value=abs(float(gap.mean())),
        low=0.0 if inside else min(abs(low), abs(high)),
        high=max(abs(low), abs(high)),
        level=level,
        n=len(gap),
        direction=Direction.HIGHER,
        method=f"{rates.BOUNDED_MEAN}, folded at 0",
        note=f"Mean confidence {float(np.mean(confidence)):.3f}, accuracy {float(right.mean()):.3f}.",
    )


def measure_mean_distance(
    distances: NDArray[np.floating], *, level: float = 0.95, name: str = "posterior-distance"
) -> Measurement:
    """Compute the mean total-variation distance between posteriors; for the interval see `rates.compute_bounded_mean`.

    Args:
        distances: Distances, N, each in [0, 1]; NaN if the target's posteriors are hidden from its owner too.
        level: Confidence level.
        name: Name of the measurement.
    """
    if np.isnan(distances).any():
        return make_missing(name, Direction.HIGHER, level, "The target returns labels only.", len(distances))
    values = np.asarray(distances, dtype=np.float64)
    value = float(values.mean())
    low, high = map(float, rates.compute_bounded_mean(values.clip(0.0, 1.0), (0.0, 1.0), level))
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=len(values),
        direction=Direction.HIGHER,
        method=rates.BOUNDED_MEAN,
    )


def make_missing(name: str, direction: Direction, level: float, note: str, n: int = 0) -> Measurement:
    """Return a measurement without a value, for what these records cannot show.

    Args:
        name: Name of the measurement.
        direction: Which direction is good for the owner.
        level: Confidence level to state.
        note: Why there is no value.
        n: Number of records.
    """
    return Measurement(name=name, value=None, level=level, n=n, direction=direction, method="none", note=note)


def _on_errors(same: int, errors: int, level: float) -> Measurement:
    name = "agreement-on-errors"
    if errors == 0:
        return make_missing(name, Direction.LOWER, level, "The target makes no errors on these records.")
    return rates.rate(name, same, errors, direction=Direction.LOWER, level=level)
