"""Measures of backdoor detectors: the rule's flags and the overlap with a known trigger."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import low_outliers, rates
from securitynet.metrics.backdoor_verdict import THRESHOLD
from securitynet.records import Direction, Measurement

Values = NDArray[np.float64]


def flag_labels(norms: Values, sampled: NDArray[np.bool_]) -> list[int]:
    """Positions of the labels that Neural Cleanse's rule flags, ascending by norm."""
    converged = np.flatnonzero(np.isfinite(norms))
    if not sampled[converged].any():
        return []
    indices = low_outliers.compute_anomaly_indices(norms[converged], norms[converged][sampled[converged]])
    return [int(converged[i]) for i in np.argsort(norms[converged], kind="stable") if indices[i] > THRESHOLD]


def measure_overlap(mask: NDArray[np.floating], trigger: NDArray[np.floating], *, level: float = 0.95) -> Measurement:
    """Compare a recovered mask with the true trigger: intersection over union of their pixels.

    Args:
        mask: H×W in [0, 1]; pixels of at least half its largest value count.
        trigger: H×W in [0, 1]; pixels above 0 count.
        level: Of the exact interval over the union's pixels.
    """
    here, there = mask >= max(0.5 * float(mask.max()), 1e-6), trigger > 0
    union = int((here | there).sum())
    return rates.rate(
        "localisation-iou", int((here & there).sum()), max(1, union), direction=Direction.HIGHER, level=level
    )
