"""The two-sample classifier of one class: a discriminant fitted to one half of the images is tested on the other."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.detectors._class_tests import ClassTests
from securitynet.metrics.precedence import compute_precedence_p_value, count_beyond

TESTS = 4
"""Number of tests of a class: two of each half."""


class ClassifiedRecords(ClassTests):
    """Scores of a classifier that distinguishes training records from clean images, by class."""

    p_value_name: ClassVar[str] = "two-sample-p-value"
    method: ClassVar[str] = (
        "rank-sum and precedence tests of a classifier on each half of each class, Holm's correction"
    )
    headline: ClassVar[tuple[str, ...]] = ("two-sample-p-value", "detection-rate", "suspect-records")


def compare_with_clean(
    training: NDArray[np.float64], clean: NDArray[np.float64], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Test whether a classifier can distinguish the training records of a class from clean images of it.

    Lopez-Paz and Oquab, "Revisiting classifier two-sample tests" (2017), with Fisher's linear discriminant (shrunk
    covariance, Ledoit and Wolf, 2004) as the classifier. It is fitted to one half of the images, and its scores of the
    other half are compared by a rank-sum test, for poison that makes up much of a class, and by a precedence test, for
    a few records that are unlike all clean images; then the halves change places. Within a half the scores are
    exchangeable if the records are, so both p-values are valid.

    Args:
        training: Features of the training records, N×D, N at least 2.
        clean: Features of the clean images, M×D, M at least 4.
        random: Divides the images into halves.

    Returns:
        The scores of the training records, N, in standard deviations of the clean scores from their mean; whether each
        lies beyond all clean images of its half, N; and the p-value with Bonferroni's correction.
    """
    spread = np.concatenate([training, clean]).std(axis=0)
    varying = spread > 0
    own, other = training[:, varying] / spread[varying], clean[:, varying] / spread[varying]
    scores, beyond, p_values = np.zeros(len(own)), np.zeros(len(own), dtype=bool), []
    if not varying.any():
        return scores, beyond, 1.0
    halves = [random.permutation(np.arange(len(rows)) % 2).astype(bool) for rows in (own, other)]
    for judged in (False, True):
        fitted, tried = [half != judged for half in halves], [half == judged for half in halves]
        direction = fit_discriminant(own[fitted[0]], other[fitted[1]])
        first, second = own[tried[0]] @ direction, other[tried[1]] @ direction
        scores[tried[0]] = (first - second.mean()) / (second.std() or 1.0)
        beyond[tried[0]] = first > second.max()
        p_values += [
            float(scipy.stats.mannwhitneyu(first, second, alternative="greater").pvalue),
            compute_precedence_p_value(count_beyond(first, second), len(first), len(second)),
        ]
    return scores, beyond, min(1.0, TESTS * min(p_values))


def fit_discriminant(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit Fisher's linear discriminant with a shrunk covariance; returns its direction, D, towards the first sample.

    Both samples have the same weight in the covariance, though one is larger: poison widens its own sample in the very
    direction in which the two differ.

    Args:
        first: N×D.
        second: M×D.
    """
    from sklearn.covariance import ledoit_wolf  # listing detectors imports this module

    centres = first.mean(axis=0), second.mean(axis=0)
    covariance = (ledoit_wolf(first)[0] + ledoit_wolf(second)[0]) / 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
            direction: NDArray[np.float64] = scipy.linalg.solve(covariance, centres[0] - centres[1], assume_a="pos")
    except (scipy.linalg.LinAlgError, scipy.linalg.LinAlgWarning):  # singular, where hardly anything was shrunk
        direction = np.linalg.lstsq(covariance, centres[0] - centres[1], rcond=None)[0]
    return direction
