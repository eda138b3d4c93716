"""How a model stands up to perturbed images: pure functions from predictions to measurements.

Three measures, for a budget of perturbation (epsilon):

- **accuracy drop** (SecurityNet, Appendix C): accuracy on the images minus accuracy on the versions of them that were
  perturbed with this epsilon;
- **robust accuracy**: share of images that are classified correctly as they are, and perturbed with this epsilon or any
  smaller one that was tried: what is within a budget is within every larger one, and an adversary leaves alone what is
  misclassified already;
- **success**: share of the correctly classified images that are misclassified at this epsilon or a smaller one.

So the last two never get better for the owner as epsilon grows, which the first can: one step along the gradient may be
too long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import paired, rates
from securitynet.records import Direction, Measurement

ROBUST_ACCURACY = "robust-accuracy"
"""Name of the accuracy under attack, without the epsilon."""

USABLE = 0.95
"""Share of images that steps without a bound must get misclassified, if gradients lead anywhere at all."""

TOO_LONG = "Smaller than at a smaller epsilon: the steps are too long. Success counts them and all shorter ones."
"""Note of an accuracy drop that does not grow."""

WARNING = "WARNING: gradients look masked"
"""How a note begins that says that gradients are not to be trusted."""


def write_epsilon(epsilon: float) -> str:
    """Format a budget for names: 0.03, and 0.0313725 for 8/255."""
    return f"{epsilon:.6g}"


def measure_evasion(
    labels: NDArray[np.int64],
    clean: NDArray[np.int64],
    perturbed: NDArray[np.int64],
    epsilons: Sequence[float],
    *,
    level: float,
) -> list[Measurement]:
    """Compute the clean accuracy, and the three metrics for each epsilon.

    Args:
        labels: True classes, N, at least one.
        clean: Predicted classes of the images, N.
        perturbed: Predicted classes of their perturbed versions, E×N.
        epsilons: E, ascending.
        level: Confidence level.

    Returns:
        ``clean-accuracy``; ``accuracy-drop@epsilon=…`` (paired interval: the same images are judged twice),
        ``robust-accuracy@epsilon=…`` and ``success@epsilon=…`` (exact).
    """
    right = clean == labels
    measurements = [
        rates.rate("clean-accuracy", int(right.sum()), len(labels), direction=Direction.HIGHER, level=level),
    ]
    stands, most = right, -1
    for epsilon, predicted in zip(epsilons, perturbed, strict=True):
        still = predicted == labels
        stands = stands & still
        lost = int(right.sum()) - int(still.sum())
        too_long, most = lost < most, max(lost, most)
        at = f"@epsilon={write_epsilon(epsilon)}"
        measurements += [
            paired.measure_paired_difference(
                f"accuracy-drop{at}", right, still, direction=Direction.LOWER, level=level
            ).with_notes(*([TOO_LONG] if too_long else [])),
            rates.rate(
                f"robust-accuracy{at}",
                int(stands.sum()),
                len(labels),
                direction=Direction.HIGHER,
                level=level,
            ),
            compute_share(
                f"success{at}",
                int((right & ~stands).sum()),
                int(right.sum()),
                "No image of the sample is classified correctly.",
                direction=Direction.LOWER,
                level=level,
            ),
        ]
    return measurements


def compute_share(name: str, count: int, n: int, otherwise: str, *, direction: Direction, level: float) -> Measurement:
    """Compute a rate; if n is 0, return a measurement without a value and with the note ``otherwise``.

    Args:
        name: Name of the measurement.
        count: Number of successes.
        n: Number of trials.
        otherwise: Note if there are no trials.
        direction: Which direction is good for the owner.
        level: Confidence level.
    """
    if n == 0:
        return Measurement(
            name=name, value=None, level=level, n=0, direction=direction, method=rates.CLOPPER_PEARSON, note=otherwise
        )
    return rates.rate(name, count, n, direction=direction, level=level)


def measure_median(name: str, counts: NDArray[np.int64], *, level: float) -> Measurement:
    """Compute the median number of queries, with the interval of order statistics.

    Its ends are the order statistics that hold the median with probability ``level`` or more, whatever the distribution
    (Conover, "Practical nonparametric statistics", section 3.2); the extremes where there are too few counts for that.

    Args:
        name: Name of the measurement.
        counts: Numbers of queries, N, at least one.
        level: Confidence level.
    """
    ordered = np.sort(counts)
    n = len(ordered)
    below = max(int(scipy.stats.binom.ppf((1 - level) / 2, n, 0.5)) - 1, 0)
    value = float(np.median(ordered))
    return Measurement(
        name=name,
        value=value,
        low=min(float(ordered[below]), value),
        high=max(float(ordered[n - 1 - below]), value),
        level=level,
        n=n,
        direction=Direction.HIGHER,
        method="order statistics",
        note="Median number of queries per image.",
    )


def measure_masking(
    without_gradient: int,
    images: int,
    unbounded_fooled: int,
    unbounded_images: int,
    *,
    level: float,
) -> tuple[list[Measurement], str | None]:
    """Whether gradients lead anywhere (Athalye, Carlini and Wagner, 2018, section 3.1): measurements, and a warning.

    Args:
        without_gradient: Images whose gradient was 0 in every pixel.
        images: How many gradients were taken.
        unbounded_fooled: Images that steps without a bound got misclassified.
        unbounded_images: How many images were tried so; all of them were classified correctly before.
        level: Confidence level.

    Returns:
        ``vanished-gradients`` and ``unbounded-success``, those that there are; and the warning, None if all is well.
        Steps without a bound "fail" where the whole interval of their success lies below `USABLE`.
    """
    measurements, reasons = [], []
    if images:
        vanished = rates.rate(
            "vanished-gradients", without_gradient, images, direction=Direction.LOWER, level=level
        ).with_notes("Share of images whose gradient is 0 in every pixel.")
        measurements.append(vanished)
        if vanished.low is not None and vanished.low > 1 - USABLE:
            reasons.append(f"{without_gradient} of {images} images have a gradient of 0")
    if unbounded_images:
        unbounded = rates.rate(
            "unbounded-success", unbounded_fooled, unbounded_images, direction=Direction.HIGHER, level=level
        ).with_notes("Steps along the gradient without a bound should get every image misclassified.")
        measurements.append(unbounded)
        if unbounded.high is not None and unbounded.high < USABLE:
            left = unbounded_images - unbounded_fooled
            reasons.append(f"steps without a bound leave {left} of {unbounded_images} images classified correctly")
    if not reasons:
        return measurements, None
    return measurements, f"{WARNING}: {', and '.join(reasons)}. The model may be less robust than this says."


def is_beaten(white: Measurement, black: Measurement) -> bool:
    """Return whether an attack with less access does better, which means that gradients are masked.

    Args:
        white: Accuracy drop (or success) of the attack with the target's own gradients.
        black: The same for an attack without gradients, with the same budget.

    Returns:
        True if the interval of ``black`` lies above that of ``white``.
    """
    return white.high is not None and black.low is not None and black.low > white.high


SIGN_TEST_IMAGES = 5
"""Smallest number of images for which a difference on the same images counts: if either attack were as likely to be the
better one on an image, all of five would favour the same one with a probability of 1/32."""


def is_weaker(strong: Measurement, weak: Measurement) -> bool:
    """Return whether an attack that should be the stronger one has the lower success.

    Args:
        strong: Success of the attack that should be stronger.
        weak: Success of the other one, with the same budget.

    Returns:
        True if the intervals do not overlap; or, where both were measured on the same number of images (attacks of one
        seed share their sample), if the difference is `SIGN_TEST_IMAGES` images or more.
    """
    if is_beaten(strong, weak):
        return True
    if strong.value is None or weak.value is None or not strong.n or strong.n != weak.n:
        return False
    return round((weak.value - strong.value) * strong.n) >= SIGN_TEST_IMAGES


def find_recoveries(by_epsilon: Mapping[float, Measurement]) -> list[tuple[float, float]]:
    """Return pairs of budgets (smaller, larger) between which accuracy under attack grows, though it cannot.

    Args:
        by_epsilon: Accuracy (robust accuracy, or 1 minus the accuracy drop) of one attack at each epsilon, on the same
            images.
    """
    pairs = []
    epsilons = sorted(by_epsilon)
    for smaller, larger in pairwise(epsilons):
        # More accuracy at the larger budget means that the attack trails what it does at the smaller one.
        if is_weaker(_as_success(by_epsilon[larger]), _as_success(by_epsilon[smaller])):
            pairs.append((smaller, larger))
    return pairs


def _as_success(accuracy: Measurement) -> Measurement:
    flipped = [None if bound is None else 1 - bound for bound in (accuracy.value, accuracy.high, accuracy.low)]
    return accuracy.model_copy(update=dict(zip(("value", "low", "high"), flipped, strict=True)))
