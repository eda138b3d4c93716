"""Spectral signatures of the records of each class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.detectors._class_tests import ClassTests
from securitynet.metrics.precedence import compute_precedence_p_value, count_beyond


def compute_scores(
    training: NDArray[np.float32], clean: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Project records on the direction of their largest variance, and test whether clean ones are absent from an end.

    Tran et al., section 4, with two changes that keep the level of the test. The direction is that of the training
    records and clean images together: one that is fitted to the training records alone has more variance among them
    than among any other records, poisoned or not. Both ends of the direction are tested, and none is squared, because
    the centre of the poisoned class is unknown.

    Args:
        training: Embeddings of the training records of a class, N×D.
        clean: Embeddings of clean images of the class, M×D.

    Returns:
        The scores of the training records, N, and of the clean images, M: projections from the median of the clean
        images, positive towards the end where more training records lie beyond all clean images. Third, the p-value of
        that end (`securitynet.metrics.precedence`), doubled for the choice of the end.
    """
    together = np.concatenate([training, clean]).astype(np.float64)
    direction = np.linalg.svd(together - together.mean(axis=0), full_matrices=False)[2][0]
    projections = together @ direction
    projections -= np.median(projections[len(training) :])
    own, other = projections[: len(training)], projections[len(training) :]
    if count_beyond(-own, -other) > count_beyond(own, other):
        own, other = -own, -other
    p_value = compute_precedence_p_value(count_beyond(own, other), len(own), len(other))
    return own, other, min(1.0, 2 * p_value)


class Signatures(ClassTests):
    """Spectral signatures of training records: scores are projections towards the end without clean images."""

    p_value_name: ClassVar[str] = "spectral-p-value"
    method: ClassVar[str] = "precedence test of both ends of each class, Holm's correction"
    headline: ClassVar[tuple[str, ...]] = ("spectral-p-value", "detection-rate", "suspect-records")
