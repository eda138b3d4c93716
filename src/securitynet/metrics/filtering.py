"""Metrics of input filters: thresholds, and the shares of clean images and of images with a trigger that are stopped.

A *higher* score means "more suspicious". Images with the trigger are the positives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import rates, roc
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.records import Direction, Measurement

Fit = Literal["auto", "normal", "quantile"]

FEWEST_EXPECTED = 3
"""Number of expected false rejections from which on a normal fit that rejects none of the images is not trusted."""


@dataclass(frozen=True)
class LowThreshold:
    """A threshold below which a value counts as suspicious.

    Attributes:
        value: The threshold.
        fit: How it was chosen.
    """

    value: float
    fit: Literal["normal", "quantile"]


def choose_low_threshold(values: NDArray[np.float64], rate: float, fit: Fit = "auto") -> LowThreshold:
    """Choose the threshold below which a share ``rate`` of clean values is expected (Gao et al. 2019, section 4.3).

    Args:
        values: Values of clean images, N, at least two.
        rate: The false rejection rate, in (0, 1).
        fit: ``normal``: the quantile of a normal distribution with their mean and deviation, as in the paper.
            ``quantile``: their own quantile, such that at most floor(rate · N) of them lie below it. ``auto``: the
            former, unless it would lie below all values although `FEWEST_EXPECTED` or more should lie below it: skewed
            values do that to a normal fit, and the filter would then stop nothing.

    Raises:
        ValueError: If there are fewer than two values, one is NaN, or the rate is not in (0, 1).
    """
    if len(values) < 2 or np.isnan(values).any() or not 0 < rate < 1:
        raise ValueError("a threshold needs two values or more, none NaN, and a rate between 0 and 1")
    deviation = float(values.std(ddof=1))
    normal = float(values.mean()) + deviation * float(scipy.stats.norm.ppf(rate))
    useless = normal <= values.min() and deviation > 0 and rate * len(values) >= FEWEST_EXPECTED
    if fit == "normal" or (fit == "auto" and not useless):
        return LowThreshold(normal, "normal")
    allowed = math.floor(rate * len(values) + 1e-9)
    return LowThreshold(float(np.sort(values)[min(allowed, len(values) - 1)]), "quantile")


@dataclass(frozen=True, eq=False)
class FilterDecisions:
    """Scores of images and the decisions of a filter.

    Attributes:
        scores: Scores, N; higher means "more suspicious".
        flagged: Whether the filter stops each image, N.
    """

    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: NDArray[np.bool_]) -> FilterDecisions:
        """Return the decisions on some of the images, given by a mask."""
        return FilterDecisions(self.scores[which], self.flagged[which])


def measure_false_rejections(
    clean: FilterDecisions, *, level: float = 0.95, name: str = "false-rejection-rate"
) -> Measurement:
    """Compute the share of clean images that the filter stops, with its exact interval.

    Args:
        clean: Decisions on clean images.
        level: Confidence level.
        name: Name of the measurement.
    """
    return rates.rate(name, int(clean.flagged.sum()), len(clean), direction=Direction.LOWER, level=level)


def measure_detection(
    clean: FilterDecisions,
    triggered: FilterDecisions,
    works: NDArray[np.bool_],
    *,
    fprs: Sequence[float] = DEFAULT_FPRS,
    level: float = 0.95,
) -> list[Measurement]:
    """Compute how well a filter detects images with a trigger.

    Images whose prediction the trigger does not change are harmless; detection is evaluated on the others.

    Args:
        clean: Clean images.
        triggered: The same or other images with the trigger, M.
        works: Whether the trigger changes the prediction of each, M.
        fprs: Bounds for TPR at FPR.
        level: Confidence level.

    Returns:
        ``trigger-success-rate``, ``detection-rate``, ``auc`` and ``tpr@fpr=...``. All but the first have no value if
        the trigger works on no image.
    """
    count = int(works.sum())
    success = rates.rate("trigger-success-rate", count, len(triggered), direction=Direction.LOWER, level=level)
    if count == 0:
        why = "the trigger changes the prediction of no image, so there is nothing to detect"
        return [success, *(measure_nothing(name, why, level) for name in ("detection-rate", "auc"))]
    caught = triggered.chosen(works)
    measurements = [
        rates.rate("detection-rate", int(caught.flagged.sum()), count, direction=Direction.HIGHER, level=level),
        roc.measure_auc(caught.scores, clean.scores, level=level),
        *(roc.measure_tpr_at_fpr(caught.scores, clean.scores, fpr, level=level) for fpr in fprs),
    ]
    return [success, *(_good_when_high(measurement) for measurement in measurements)]


def measure_suspects(clean: FilterDecisions, judged: FilterDecisions, *, level: float = 0.95) -> list[Measurement]:
    """Compute the share of images of unknown origin that are stopped, and its excess over that of clean images.

    Args:
        clean: Decisions on clean images.
        judged: Decisions on the images of unknown origin.
        level: Confidence level.
    """
    stopped, all_of_them = int(judged.flagged.sum()), len(judged)
    return [
        rates.rate("suspects-flagged", stopped, all_of_them, direction=Direction.LOWER, level=level),
        rates.measure_difference(
            "suspects-excess",
            (stopped, all_of_them),
            (int(clean.flagged.sum()), len(clean)),
            direction=Direction.LOWER,
            level=level,
        ),
    ]


def compute_overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the intersection over union of masks, N×H×W against H×W: N, 0 if both are empty."""
    both, either = (first & second).sum(axis=(1, 2)), (first | second).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(either, 1), dtype=np.float64)


def measure_mean_share(name: str, values: NDArray[np.float64], *, level: float = 0.95) -> Measurement:
    """Compute the mean of shares, where high is good; for the interval see `rates.compute_bounded_mean`.

    Args:
        name: Name of the measurement.
        values: Shares in [0, 1], N, at least one.
        level: Confidence level.
    """
    value = float(values.mean())
    low, high = map(float, rates.compute_bounded_mean(values, (0.0, 1.0), level))
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


def measure_nothing(name: str, why: str, level: float = 0.95) -> Measurement:
    """Return a measurement without a value, for which high is good.

    Args:
        name: Name of the measurement.
        why: Why there is no value.
        level: Confidence level.
    """
    return Measurement(name=name, value=None, level=level, n=0, direction=Direction.HIGHER, method="none", note=why)


def _good_when_high(measurement: Measurement) -> Measurement:
    note = measurement.note and measurement.note.replace("non-members", "clean images")
    return measurement.model_copy(update={"direction": Direction.HIGHER, "note": note})
