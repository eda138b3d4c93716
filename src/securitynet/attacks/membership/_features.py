"""Inputs of attack networks: pure functions of logits, labels and gradients.

Posteriors of an overfitted target differ from 0 and 1 by less than float32 resolves, and the losses and gradients of
its members span twenty orders of magnitude. Each input is therefore transformed to a scale on which members and
non-members differ by a few units. All transformations are one-to-one, so no information is lost or added.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from securitynet.models.targets.gradients import LastLayerGradients

_BOUND = 100.0
_LARGEST_INPUT = 10.0


def scale_logits(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return log p − log(1 − p) of each posterior p, N×K, computed in double precision and bounded by ±100.

    Args:
        logits: Logits, N×K, up to a constant per row, K at least 2.
    """
    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    # For all posteriors but the largest, 1 - p is at least one half; for the largest it is the sum of the others.
    rows, top = np.arange(len(log_p)), log_p.argmax(axis=1)
    others = log_p.copy()
    others[rows, top] = -np.inf
    rest = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    rest[rows, top] = logsumexp(others, axis=1)
    return np.asarray(np.clip(log_p - rest, -_BOUND, _BOUND), dtype=np.float32)


def rank_values(values: NDArray[np.float32], count: int | None = None) -> NDArray[np.float32]:
    """Return the ``count`` largest values of each row in descending order (all by default)."""
    return np.ascontiguousarray(-np.sort(-values, axis=1)[:, :count])


def encode_one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return labels in one-hot encoding, N×K."""
    return np.eye(classes, dtype=np.float32)[labels]


def rank_gradients(layer: LastLayerGradients, labels: NDArray[np.int64], limit: int) -> NDArray[np.float32]:
    """Return gradients of the last layer in an order that is comparable between models, N×F, F at most ``limit``.

    The gradient is the outer product of the residuals (K) and the layer's inputs (D, with a 1 for the bias). The role
    of each unit is an accident of training, so an attack network that learned from the gradients of a shadow model unit
    by unit could not interpret those of the target. Therefore the residual of the label comes first and the others in
    descending order, and the inputs are ordered by descending magnitude. The smallest values beyond the limit are cut.

    Args:
        layer: Residuals and inputs of the last layer.
        labels: True classes, N.
        limit: Largest number of values per record.
    """
    residuals = layer.residuals.numpy()
    rows = np.arange(len(labels))
    own = residuals[rows, labels]
    others = residuals.copy()
    others[rows, labels] = -np.inf
    others = -np.sort(-others, axis=1)[:, :-1]
    left = np.concatenate([own[:, None], others], axis=1)
    inputs = layer.embeddings.numpy()
    if layer.bias:
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
    right = np.take_along_axis(inputs, np.argsort(-np.abs(inputs), axis=1, kind="stable"), axis=1)
    height, width = _shape(left.shape[1], right.shape[1], limit)
    return _outer(left[:, :height], right[:, :width])


def project_gradients(layer: LastLayerGradients, limit: int, generator: torch.Generator) -> NDArray[np.float32]:
    """Return unsorted gradients of the last layer, N×F, randomly projected if they have more than ``limit`` values.

    The projection is (A·residual) ⊗ (B·input) with Gaussian A and B. It preserves inner products of gradients in
    expectation and never computes a full gradient.

    Args:
        layer: Residuals and inputs of the last layer.
        limit: Largest number of values per record.
        generator: Random numbers of the projection.
    """
    left, right = layer.residuals, layer.embeddings
    if layer.bias:
        right = torch.cat([right, torch.ones(len(right), 1)], dim=1)
    height, width = _shape(left.shape[1], right.shape[1], limit)
    if height < left.shape[1]:
        left = left @ torch.randn(left.shape[1], height, generator=generator) / height**0.5
    if width < right.shape[1]:
        right = right @ torch.randn(right.shape[1], width, generator=generator) / width**0.5
    return _outer(left.numpy(), right.numpy())


def _shape(classes: int, inputs: int, limit: int) -> tuple[int, int]:
    """Return the sizes of two factors whose product is at most ``limit``; inputs are cut before classes."""
    if classes * inputs <= limit:
        return classes, inputs
    height = min(classes, max(1, int(limit**0.5)))
    return height, max(1, min(inputs, limit // height))


def _outer(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.einsum("nk,nd->nkd", left, right).reshape(len(left), -1), dtype=np.float32)


class Scale:
    """Standardises each input on the records that train the attack network.

    Args:
        values: Inputs of those records, N×F.
        compress: Whether to apply asinh(x / s) first, where s is the median magnitude of the non-zero values. It is
            linear for small values and logarithmic for large ones, for inputs that span orders of magnitude.
        unit_norm: Whether to scale to a standard deviation of 1 / √F instead of 1, so that the inputs of a record have
            a norm of about 1.
    """

    def __init__(self, values: NDArray[np.float32], *, compress: bool = False, unit_norm: bool = False) -> None:
        magnitudes = np.abs(values[values != 0]) if compress else np.empty(0)
        self._unit = float(np.median(magnitudes)) if magnitudes.size else 1.0
        self._compress = compress
        squeezed = self._squeezed(values)
        self._mean = squeezed.mean(axis=0)
        deviation = squeezed.std(axis=0)
        self._deviation = np.where(deviation > 1e-6, deviation, 1)
        self._factor = values.shape[1] ** -0.5 if unit_norm else 1.0

    def __call__(self, values: NDArray[np.float32]) -> torch.Tensor:
        """Scale values, N×F float32, and clip them to ±10: those of another model may lie far outside."""
        scaled = (self._squeezed(values) - self._mean) / self._deviation
        bounded = np.clip(scaled, -_LARGEST_INPUT, _LARGEST_INPUT) * self._factor
        return torch.from_numpy(bounded.astype(np.float32))

    def _squeezed(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return np.arcsinh(values / self._unit) if self._compress else values
