"""Tests whether the training records of a class form two groups, only one of which occurs among clean images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement

SILHOUETTE = 0.1
"""Silhouette from which on two clusters count as separate groups (Chen et al., 2019, section 5: 0.10 to 0.15)."""

LARGEST_SHARE = 0.35
"""Poisoned records are assumed to be less than this share of a class."""

LARGEST_RATIO = 0.25
"""A cluster is foreign if clean images are at most this often in it, relative to training records."""

ALPHA = 0.05

Counts = NDArray[np.int64]


def apply_rule(silhouettes: NDArray[np.float64], training: Counts) -> NDArray[np.bool_]:
    """Return the classes that the paper's rule flags: well separated clusters, one of them small (section 5).

    Args:
        silhouettes: Of each class, K; NaN where it was not clustered.
        training: Training records in each class's two clusters, K×2.
    """
    shares = training.min(axis=1) / np.maximum(training.sum(axis=1), 1)
    return np.asarray((np.nan_to_num(silhouettes, nan=-1.0) >= SILHOUETTE) & (shares < LARGEST_SHARE))


def find_foreign_clusters(training: Counts, clean: Counts) -> tuple[Counts, NDArray[np.float64]]:
    """Return, for each class, the cluster that clean images avoid, and a p-value.

    Where no record is poisoned, clean images fall into a cluster as often as training records do, except for what the
    network memorised. Fisher's exact test, one-sided, says whether they do so less often. A small difference does not
    indicate a backdoor, so clusters in which clean images are more than `LARGEST_RATIO` as frequent have a p-value
    of 1.

    Args:
        training: Training records in each class's two clusters, K×2.
        clean: Clean images in them, K×2.

    Returns:
        The cluster of each class, K, and the p-values, K; 1 if either group is empty.
    """
    which = np.zeros(len(training), dtype=np.int64)
    p_values = np.ones(len(training))
    for k, (held, seen) in enumerate(zip(training, clean, strict=True)):
        if not held.sum() or not seen.sum():
            continue
        shares = held / held.sum(), seen / seen.sum()
        which[k] = int((shares[0] - shares[1]).argmax())
        mine = which[k]
        if shares[1][mine] <= LARGEST_RATIO * shares[0][mine]:
            table = [[held[mine], held[1 - mine]], [seen[mine], seen[1 - mine]]]
            p_values[k] = float(scipy.stats.fisher_exact(table, alternative="greater").pvalue)
    return which, p_values


def correct_for_clusters(p_values: NDArray[np.float64], tested: int) -> NDArray[np.float64]:
    """Adjust p-values for ``tested`` simultaneous tests (Holm, 1979), keeping their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.maximum(tested - np.arange(len(p_values)), 1)
    stepped = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    adjusted_values = np.empty(len(p_values))
    adjusted_values[order] = stepped
    return adjusted_values


def measure_clusters(
    silhouettes: NDArray[np.float64],
    p_values: NDArray[np.float64],
    training: Counts,
    suspect: NDArray[np.bool_],
    poisoned: NDArray[np.bool_] | None = None,
    *,
    level: float = 0.95,
    notes: Sequence[str] = (),
) -> list[Measurement]:
    """Compute verdicts on classes and on records.

    Args:
        silhouettes: Silhouette of each class, K; NaN for classes that were not clustered.
        p_values: Adjusted p-values, K.
        training: Training records in both clusters of each class, K×2.
        suspect: Whether each record lies in the foreign cluster of a class whose p-value is below `ALPHA`, N.
        poisoned: Whether each record is poisoned, N, if known.
        level: Confidence level of the intervals.
        notes: Notes, which are added to each measurement.

    Returns:
        ``foreign-p-value`` of the most suspicious class, ``foreign-classes``, ``rule-flagged-classes``,
        ``suspect-records`` and, if poison is known, ``detection-rate`` and ``false-rejection-rate`` of records.
    """
    tested = ~np.isnan(silhouettes)
    count = int(tested.sum())
    low, high = Direction.LOWER, Direction.HIGHER
    if not count:
        why = "no class has enough records to be clustered"
        names = (("foreign-p-value", high), ("foreign-classes", low), ("rule-flagged-classes", low))
        return [
            Measurement(name=name, value=None, level=level, n=0, direction=way, method="none", note=why)
            for name, way in names
        ]
    smallest = float(p_values[tested].min())
    measurements = [
        Measurement(
            name="foreign-p-value",
            value=smallest,
            low=smallest,
            high=smallest,
            level=level,
            n=count,
            direction=high,
            method="Fisher's exact test of each class, Holm's correction",
        ),
        rates.rate("foreign-classes", int((p_values[tested] < ALPHA).sum()), count, direction=low, level=level),
        rates.rate(
            "rule-flagged-classes",
            int(apply_rule(silhouettes, training)[tested].sum()),
            count,
            direction=low,
            level=level,
        ),
        rates.rate("suspect-records", int(suspect.sum()), len(suspect), direction=low, level=level),
    ]
    if poisoned is not None and poisoned.any() and not poisoned.all():
        caught, stopped = int(suspect[poisoned].sum()), int(suspect[~poisoned].sum())
        measurements += [
            rates.rate("detection-rate", caught, int(poisoned.sum()), direction=high, level=level),
            rates.rate("false-rejection-rate", stopped, int((~poisoned).sum()), direction=low, level=level),
        ]
    return [measurement.with_notes(*notes) for measurement in measurements]
