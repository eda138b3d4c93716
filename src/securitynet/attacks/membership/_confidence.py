"""Functions of a target's outputs for membership scores, computed without loss of precision near certainty.

The posteriors of an overfitted model are so close to 1 that they round to 1 in float32 and often in float64: all such
records would tie, and rounding would decide TPR at a low FPR. Everything here is therefore computed in double precision
from logits, with 1 − p computed as the sum of the other posteriors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from securitynet.errors import TargetError

NUMBERS_AT_ONCE = 1 << 22
"""Outputs that are converted to double precision at once, 32 MiB: those of 60,000 records and 1,000 classes are not."""


def check_logits(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Check outputs and return the logits in double precision.

    Args:
        logits: Logits, N×K, or M×N×K for several models.
        labels: True classes, N.

    Raises:
        TargetError: If shapes do not fit, there are fewer than two classes, a label is outside [0, K), or a value is
            NaN or plus infinity.
    """
    values = np.asarray(logits)
    _check_values(values, labels)
    return np.asarray(values, dtype=np.float64)


def _check_values(values: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    if values.ndim not in (2, 3) or labels.ndim != 1 or values.shape[-2] != len(labels):
        raise TargetError(
            f"Outputs of shape {values.shape} do not match labels of shape {labels.shape}; expected N×K and N."
        )
    classes = values.shape[-1]
    if classes < 2:
        raise TargetError("Outputs with a single class say nothing about membership: all posteriors are 1.")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise TargetError(f"Labels range from {labels.min()} to {labels.max()}; the outputs have {classes} classes.")
    if np.isfinite(values).all():
        return
    bad = (np.isnan(values) | np.isposinf(values) | np.isneginf(values).all(axis=-1, keepdims=True)).any(axis=-1)
    if bad.any():
        raise TargetError(
            f"The outputs are not finite for {int(bad.sum())} of {bad.size} records (NaN or infinity).",
            hint="Check the weights and the preprocessing, or leave these records out.",
        )


def scale_confidence(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return φ = log(p_y / (1 − p_y)), the logit of the posterior of the true class (Carlini et al., 2022, section 4).

    It is approximately normally distributed over retrainings, which LiRA relies on.

    Args:
        logits: Logits, N×K or M×N×K, up to a constant per row.
        labels: True classes, N.

    Returns:
        N or M×N; finite unless a posterior is exactly 0.

    Raises:
        TargetError: See `check_logits`.
    """
    values = np.asarray(logits)
    _check_values(values, labels)
    if values.ndim == 3:
        return np.stack([_by_rows(_scaled_confidence, one, labels) for one in values])
    return _by_rows(_scaled_confidence, values, labels)


def _scaled_confidence(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    at = labels.reshape((1,) * (values.ndim - 2) + (-1, 1))
    own = np.take_along_axis(values, np.broadcast_to(at, (*values.shape[:-1], 1)), axis=-1)
    others = values.copy()
    np.put_along_axis(others, np.broadcast_to(at, (*values.shape[:-1], 1)), -np.inf, axis=-1)
    return np.asarray(own[..., 0] - _log_sum_exp(others), dtype=np.float64)


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-sum-exp along the last axis; on rows of few classes it takes a third of the time of SciPy's."""
    peak = values.max(axis=-1)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # nothing but zeros: the logarithm is minus infinity
        return np.asarray(peak + np.log(np.exp(values - peak[..., None]).sum(axis=-1)), dtype=np.float64)


def log_confidence(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithm of p_y in nats, minus the cross-entropy loss; arguments as for `scale_confidence`."""
    return np.asarray(-np.logaddexp(0.0, -scale_confidence(logits, labels)), dtype=np.float64)


def compute_margin(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logit of the true class minus the largest other logit, N; positive if the prediction is correct."""
    values = np.asarray(logits)
    _check_values(values, labels)
    return _by_rows(_margin, values, labels)


def _margin(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = np.arange(len(labels))
    others = values.copy()
    others[rows, labels] = -np.inf
    return np.asarray(values[rows, labels] - others.max(axis=1), dtype=np.float64)


def scale_top_confidence(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logit of the largest posterior, N."""
    return scale_confidence(logits, np.asarray(np.argmax(logits, axis=1), dtype=np.int64))


def compute_entropy(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Shannon entropy of the posteriors, N, in nats, in [0, log K]."""
    top = np.asarray(np.argmax(logits, axis=1), dtype=np.int64)
    values = check_logits(logits, top)
    log_p = np.asarray(log_softmax(values, axis=1))
    log_p[np.arange(len(top)), top] = log_confidence(values, top)  # near certainty log_softmax rounds it to 0
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(log_p), 0.0, np.exp(log_p) * log_p)
    return np.asarray(-terms.sum(axis=1), dtype=np.float64)


def check_evidence(observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]) -> None:
    """Raise `TargetError` if the shapes do not match or a signal is NaN.

    Args:
        observed: Signal under the target, N.
        shadows: Signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
    """
    if shadows.ndim != 2 or shadows.shape != included.shape or observed.shape != shadows.shape[1:]:
        raise TargetError(
            f"Signals of shapes {observed.shape} (target) and {shadows.shape} (shadow models) and inclusion of shape "
            f"{included.shape} do not match; expected N, M×N and M×N."
        )
    if np.isnan(observed).any() or np.isnan(shadows).any():
        raise TargetError("A signal is NaN: the outputs of the target or of a shadow model are unusable.")


def check_finite_evidence(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> None:
    """Check the shapes, and that all signals are finite.

    Args:
        observed: Signals of the target.
        shadows: Signals of the shadow models.
        included: Whether each shadow model was trained on each record.

    Raises:
        TargetError: If the shapes do not match or a signal is not finite.
    """
    check_evidence(observed, shadows, included)
    if not (np.isfinite(observed).all() and np.isfinite(shadows).all()):
        raise TargetError("A signal is not finite: the target or a shadow model outputs a posterior of exactly 0 or 1.")


def _by_rows(
    function: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]],
    values: NDArray[np.floating],
    labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Apply a function of rows in double precision, N×K, and labels, N, block by block: copies of all take gigabytes.

    The results for a row depend on that row only.
    """
    size = max(1, NUMBERS_AT_ONCE // values.shape[1])
    blocks = [
        function(np.asarray(values[start : start + size], dtype=np.float64), labels[start : start + size])
        for start in range(0, max(1, len(values)), size)
    ]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
