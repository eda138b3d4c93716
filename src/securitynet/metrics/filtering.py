"""What an input filter does: its threshold, how many clean images it stops, and how many images with a trigger.

A *higher* score means "more suspicious". TriggeredImages images are the positives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from securitynet.metrics import rates, roc
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.records import Direction, Measurement

Fit = Literal["auto", "normal", "quantile"]

FEWEST_EXPECTED = 3
"""From this many expected false rejections on, a normal fit that rejects none of the fitted images is not believed."""


@dataclass(frozen=True)
class LowThreshold:
    """A bound below which a value counts as suspicious.

    Attributes:
        value: The bound.
        fit: How it was chosen.
    """

    value: float
    fit: Literal["normal", "quantile"]


def low_threshold(values: NDArray[np.float64], rate: float, fit: Fit = "auto") -> LowThreshold:
    """The bound below which a share ``rate`` of clean values is expected (Gao et al. 2019, section 4.3).

    Args:
        values: Of clean images, N, at least two.
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
    normal = float(values.mean()) + deviation * float(stats.norm.ppf(rate))
    useless = normal <= values.min() and deviation > 0 and rate * len(values) >= FEWEST_EXPECTED
    if fit == "normal" or (fit == "auto" and not useless):
        return LowThreshold(normal, "normal")
    allowed = math.floor(rate * len(values) + 1e-9)
    return LowThreshold(float(np.sort(values)[min(allowed, len(values) - 1)]), "quantile")


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of some images and what the filter said of them.

    Attributes:
        scores: N, higher meaning "more suspicious".
        flagged: Whether the filter stops it, N.
    """

    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: NDArray[np.bool_]) -> Judged:
        """Some of them."""
        return Judged(self.scores[which], self.flagged[which])


def false_rejections(clean: Judged, *, level: float = 0.95, name: str = "false-rejection-rate") -> Measurement:
    """Share of clean images that the filter stops, with its exact interval."""
    return rates.rate(name, int(clean.flagged.sum()), len(clean), direction=Direction.LOWER, level=level)


def detection(
    clean: Judged,
    triggered: Judged,
    works: NDArray[np.bool_],
    *,
    fprs: Sequence[float] = DEFAULT_FPRS,
    level: float = 0.95,
) -> list[Measurement]:
    """What a filter makes of images with a trigger.

    Images whose prediction the trigger does not change do no harm; detection is judged on the others.

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
        return [success, *(nothing(name, why, level) for name in ("detection-rate", "auc"))]
    caught = triggered.chosen(works)
    measurements = [
        rates.rate("detection-rate", int(caught.flagged.sum()), count, direction=Direction.HIGHER, level=level),
        roc.auc(caught.scores, clean.scores, level=level),
        *(roc.tpr_at_fpr(caught.scores, clean.scores, fpr, level=level) for fpr in fprs),
    ]
    return [success, *(_good_when_high(measurement) for measurement in measurements)]


def suspects(clean: Judged, judged: Judged, *, level: float = 0.95) -> list[Measurement]:
    """Share of images of unknown origin that the filter stops, and how much that is above the share of clean ones."""
    stopped, all_of_them = int(judged.flagged.sum()), len(judged)
    return [
        rates.rate("suspects-flagged", stopped, all_of_them, direction=Direction.LOWER, level=level),
        rates.difference(
            "suspects-excess",
            (stopped, all_of_them),
            (int(clean.flagged.sum()), len(clean)),
            direction=Direction.LOWER,
            level=level,
        ),
    ]


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of masks, N×H×W against H×W: N, 0 where both are empty."""
    both, either = (first & second).sum(axis=(1, 2)), (first | second).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(either, 1), dtype=np.float64)


def mean_share(name: str, values: NDArray[np.float64], *, level: float = 0.95) -> Measurement:
    """Mean of shares, where high is good; for the interval see `rates.bounded_mean`.

    Args:
        name: Name of the measurement.
        values: In [0, 1], N, at least one.
        level: Confidence level.
    """
    value = float(values.mean())
    low, high = map(float, rates.bounded_mean(values, (0.0, 1.0), level))
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


def nothing(name: str, why: str, level: float = 0.95) -> Measurement:
    """A measurement, good when high, without a value."""
    return Measurement(name=name, value=None, level=level, n=0, direction=Direction.HIGHER, method="none", note=why)


def _good_when_high(measurement: Measurement) -> Measurement:
    note = measurement.note and measurement.note.replace("non-members", "clean images")
    return measurement.model_copy(update={"direction": Direction.HIGHER, "note": note})
