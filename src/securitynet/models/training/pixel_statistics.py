"""Mean and deviation of images, computed exactly from counts of byte values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.models.sources.preprocessing import Preprocessing

_DIGITS = 4
_SMALLEST_DEVIATION = 1e-3


def fit_normalization(dataset: ImageDataset, indices: NDArray[np.int64]) -> Preprocessing:
    """The normalisation that gives each channel of the selected images mean 0 and deviation 1.

    Args:
        dataset: The dataset that holds the images.
        indices: The training records: no record that the network must not be trained on.

    Returns:
        Means and deviations for images in [0, 1], rounded to 4 digits.
    """
    channels = dataset.image_shape[0]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for _, images in dataset.batches(indices, 4096):
        for channel in range(channels):
            counts[channel] += np.bincount(images[:, channel].numpy().ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    variance = np.array([row @ (values - centre) ** 2 / row.sum() for row, centre in zip(counts, mean, strict=True)])
    # A constant channel has no scale.
    deviation = np.maximum(np.sqrt(variance), _SMALLEST_DEVIATION)
    return Preprocessing(
        mean=tuple(round(float(v), _DIGITS) for v in mean), std=tuple(round(float(v), _DIGITS) for v in deviation)
    )
