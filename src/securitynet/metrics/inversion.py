"""Metrics of model inversion: how close reconstructions are to their class, and whether another classifier agrees.

Reconstructions of one class from several restarts resemble one another, so intervals treat them as clusters: results
for one class need not hold for another, however often it was restarted.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement

Values = NDArray[np.float64]
Classes = NDArray[np.int64]

_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2
_CHUNK = 1 << 22


def compute_mse(images: NDArray[np.floating], references: NDArray[np.floating]) -> Values:
    """Compute the mean squared error of each image against its reference (ML-Doctor, section 5.2).

    Args:
        images: N×C×H×W in [0, 1].
        references: Of the same shape.

    Returns:
        N, each in [0, 1].
    """
    _check(images, references)
    difference = images.astype(np.float64) - references
    return np.asarray((difference**2).mean(axis=(1, 2, 3)))


def compute_ssim(images: NDArray[np.floating], references: NDArray[np.floating]) -> Values:
    """Compute the structural similarity of images and references (Wang et al., 2004, section III), over all channels.

    Gaussian windows of 11×11 pixels with deviation 1.5, over the places where they lie within the image; smaller ones
    where the image has fewer than 11 pixels a side.

    Args:
        images: N×C×H×W in [0, 1], at least 3 pixels a side.
        references: Of the same shape.

    Returns:
        N, each in [-1, 1]; 1 for equal images.
    """
    _check(images, references)
    radius = min(_RADIUS, (min(images.shape[-2:]) - 1) // 2)
    inner = (slice(None), slice(None), slice(radius, -radius or None), slice(radius, -radius or None))

    def smooth(values: Values) -> Values:
        rows = scipy.ndimage.gaussian_filter1d(values, _SIGMA, axis=-1, radius=radius)
        return np.asarray(scipy.ndimage.gaussian_filter1d(rows, _SIGMA, axis=-2, radius=radius)[inner])

    x, y = images.astype(np.float64), references.astype(np.float64)
    mean_x, mean_y = smooth(x), smooth(y)
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variances + _C2)
    )
    return np.asarray(similarity.mean(axis=(1, 2, 3)))


def compute_blank_mse(means: NDArray[np.floating]) -> Values:
    """Compute the MSE between each class's mean image and black, mid-grey or white, whichever is nearest on average.

    Args:
        means: Mean images in [0, 1], K×C×H×W.

    Returns:
        K.
    """
    candidates = [compute_mse(means, np.full(means.shape, level)) for level in (0.0, 0.5, 1.0)]
    return min(candidates, key=lambda values: float(values.mean()))


def compute_mean_colour_mse(means: NDArray[np.floating]) -> Values:
    """Compute the MSE between each class's mean image and the mean colour, the best image of one colour on average.

    Args:
        means: Mean images in [0, 1], K×C×H×W.

    Returns:
        K.
    """
    colour = means.mean(axis=(0, 2, 3), dtype=np.float64)[None, :, None, None]
    return compute_mse(means, np.broadcast_to(colour, means.shape))


def compute_other_class_mse(means: NDArray[np.floating]) -> Values:
    """Compute the MSE between the mean images of each class and another, averaged over the others; NaN with one class.

    Args:
        means: Mean images in [0, 1], K×C×H×W.
    """
    flat = means.reshape(len(means), -1).astype(np.float64)
    if len(flat) < 2:
        return np.full(len(flat), np.nan)
    apart = _squared_distances(flat, flat) / flat.shape[1]
    return np.asarray(apart.sum(axis=1) / (len(flat) - 1))


def find_nearest(queries: NDArray[np.floating], pool: NDArray[np.floating]) -> tuple[Values, NDArray[np.int64]]:
    """Return the distance of each query to its nearest row of a pool, and the position of that row (ties: the first).

    Args:
        queries: N×D.
        pool: M×D, M at least 1.

    Returns:
        Euclidean distances, N; positions in the pool, N.
    """
    rows, known = queries.astype(np.float64), pool.astype(np.float64)
    best = np.empty(len(queries), dtype=np.int64)
    size = max(1, _CHUNK // max(1, len(pool)))
    for start in range(0, len(queries), size):
        best[start : start + size] = _squared_distances(rows[start : start + size], known).argmin(axis=1)
    # Recomputed from the rows, because the difference of large squares is inexact.
    return np.asarray(np.linalg.norm(rows - known[best], axis=1)), best


def compute_centroid_distance(queries: NDArray[np.floating], members: NDArray[np.floating]) -> Values:
    """Return the distance of each query to the centroid of real images, relative to their own mean distance.

    Args:
        queries: Features, N×D.
        members: Features of real images of the class, M×D.

    Returns:
        Distances, N: 1 is as far as a real image on average, 0 is the centroid. NaN if all real images coincide.
    """
    members = members.astype(np.float64)
    centroid = members.mean(axis=0)
    spread = float(np.linalg.norm(members - centroid, axis=1).mean())
    distances = np.linalg.norm(queries.astype(np.float64) - centroid, axis=1)
    return np.asarray(distances / spread if spread > 0 else np.full(len(queries), np.nan))


def rank_requested_class(scores: NDArray[np.floating], classes: Classes) -> NDArray[np.int64]:
    """Count the classes with a higher score than the requested one, N; ties count one half.

    Args:
        scores: N×K.
        classes: The requested classes, N.
    """
    own = scores[np.arange(len(classes)), classes][:, None]
    equal = (scores == own).sum(axis=1) - 1
    return np.asarray((scores > own).sum(axis=1) + (equal + 1) // 2, dtype=np.int64)


def measure_clustered_rate(
    name: str,
    hits: NDArray[np.bool_],
    classes: Classes,
    *,
    direction: Direction,
    level: float = 0.95,
    correlation: float | None = None,
) -> Measurement:
    """Compute the share of reconstructions that are hits, with the exact interval for their effective number.

    Reconstructions of one class tend to succeed or fail together. Their number is therefore divided by Kish's design
    effect, 1 + (restarts − 1)·ρ, with the intraclass correlation ρ estimated by analysis of variance. If all or none
    are hits, ρ cannot be estimated and 1 is assumed, so that each class counts once. If ρ is estimated from K classes,
    the number is also divided by the squared ratio of Student's quantile with K − 1 degrees of freedom to the normal
    one (Korn and Graubard, 1998). With a single class, the result covers only the restarts of that class.

    Args:
        name: Name of the measurement.
        hits: Whether each reconstruction is a hit, N.
        classes: The requested class of each, N.
        direction: Which direction is good for the owner.
        level: Confidence level.
        correlation: Value of ρ instead of an estimate; 1 counts each class once.
    """
    labels, counts = np.unique(classes, return_counts=True)
    n, value = len(hits), float(hits.mean())
    effective = float(n)
    if len(labels) > 1:
        effective = n / _design_effect(hits.astype(np.float64), classes, correlation)
        if correlation is None and len(labels) < n and 0 < value < 1:
            tails = (1 + level) / 2
            effective *= float((scipy.stats.norm.ppf(tails) / scipy.stats.t.ppf(tails, len(labels) - 1)) ** 2)
            effective = max(effective, float(len(labels)))  # as many as there are classes, whatever ρ is
    low, high = map(float, rates.compute_clopper_pearson(value * effective, effective, level))
    words = f"Clopper–Pearson, {effective:.3g} effective of {n}: {len(labels)} classes × {counts.mean():.3g} restarts"
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=n,
        direction=direction,
        method=words,
    )


def measure_mean_over_classes(
    name: str,
    values: Values,
    classes: Classes,
    *,
    direction: Direction,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, math.inf),
) -> Measurement:
    """Compute the mean of the class means with Student's interval over classes (over restarts with a single class).

    Args:
        name: Name of the measurement.
        values: One value per reconstruction, N; NaN values are left out.
        classes: The requested class of each, N.
        direction: Which direction is good for the owner.
        level: Confidence level.
        bounds: Smallest and largest possible value, to which the interval is clipped.
    """
    present = np.isfinite(values)
    values, classes = values[present], classes[present]
    if not len(values):
        note = "It could not be measured here."
        return Measurement(name=name, value=None, n=0, level=level, direction=direction, method="none", note=note)
    labels = np.unique(classes)
    several = len(labels) > 1
    samples = np.array([values[classes == label].mean() for label in labels]) if several else values
    unit = "classes" if several else "restarts"
    return _student(name, samples, unit, direction=direction, level=level, bounds=bounds)


def measure_by_class(
    name: str, values: Values, classes: Classes, *, direction: Direction, level: float = 0.95
) -> list[Measurement]:
    """Compute ``name@class=C`` for each requested class: the mean over its restarts, with Student's interval.

    Args:
        name: Name of the measurement.
        values: One value per reconstruction, N.
        classes: The requested class of each, N.
        direction: Which direction is good for the owner.
        level: Confidence level.
    """
    return [
        _student(f"{name}@class={label}", values[classes == label], "restarts", direction=direction, level=level)
        for label in np.unique(classes)
    ]


def _student(
    name: str,
    samples: Values,
    unit: str,
    *,
    direction: Direction,
    level: float,
    bounds: tuple[float, float] = (0.0, math.inf),
) -> Measurement:
    value, n = float(samples.mean()), len(samples)
    half, method, note = 0.0, f"Student's t over {n} {unit}", None
    above = value
    if n > 1:
        half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1) * samples.std(ddof=1) / math.sqrt(n))
        above = value + half
        if (samples >= 0).all() and value > 0:
            # Distances are skewed: for ten exponential values, Student's upper end is too low in 9% of samples.
            method = f"{method}, upper end on the logarithm's scale"
            above = value * math.exp(min(half / value, 700.0))
    else:
        method, note = "exact for the one reconstruction", "One reconstruction: what others would give is not known."
    low, high = max(bounds[0], value - half), min(bounds[1], above)
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=n,
        direction=direction,
        method=method,
        note=note,
    )


def _design_effect(hits: Values, classes: Classes, correlation: float | None) -> float:
    """Compute Kish's design effect for at least two clusters, with the ANOVA estimate of ρ unless it is given."""
    labels, index, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    n, clusters = len(hits), len(labels)
    if n == clusters:
        return 1.0
    typical = (n - (sizes**2).sum() / n) / (clusters - 1)
    if correlation is not None:
        return float(1 + (typical - 1) * correlation)
    means = np.bincount(index, hits) / sizes
    between = float((sizes * (means - hits.mean()) ** 2).sum() / (clusters - 1))
    within = float(((hits - means[index]) ** 2).sum() / (n - clusters))
    spread = between + (typical - 1) * within
    estimate = 1.0 if spread == 0 else min(1.0, max(0.0, (between - within) / spread))
    # A few classes often differ less than classes in general, so one further, different class is allowed for.
    return float(1 + (typical - 1) * (estimate + (1 - estimate) / clusters))


def _squared_distances(first: Values, second: Values) -> Values:
    products = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * products
    return np.asarray(np.maximum(squares, 0))


def _check(images: NDArray[np.floating], references: NDArray[np.floating]) -> None:
    if images.shape != references.shape or images.ndim != 4:
        raise ValueError(f"images of shape {images.shape} can't be compared with {references.shape}")
