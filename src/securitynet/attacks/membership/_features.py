"""What attack networks are fed: pure functions of logits, labels and gradients.

Posteriors of an overfitted target differ from 0 and 1 by less than float32 can hold, and losses and gradients of its
members span twenty orders of magnitude. Each is therefore given on a scale on which members and non-members lie apart
by a few units; all scales are one-to-one, so nothing is lost or added.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from securitynet.models.targets.gradients import LastLayer

_BOUND = 100.0
_LARGEST_INPUT = 10.0


def logit_scaled(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """The values log p − log(1 − p) of each posterior p, N×K, in double precision inside, bounded by ±100.

    Args:
        logits: N×K, up to a constant per row, K at least 2.
    """
    log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    # Of all but the largest, 1 - p is at least a half; of the largest it is the sum of the others.
    rows, top = np.arange(len(log_p)), log_p.argmax(axis=1)
    others = log_p.copy()
    others[rows, top] = -np.inf
    rest = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    rest[rows, top] = logsumexp(others, axis=1)
    return np.asarray(np.clip(log_p - rest, -_BOUND, _BOUND), dtype=np.float32)


def ranked(values: NDArray[np.float32], count: int | None = None) -> NDArray[np.float32]:
    """Each row in descending order, its first ``count`` values (all by default)."""
    return np.ascontiguousarray(-np.sort(-values, axis=1)[:, :count])


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """N×K."""
    return np.eye(classes, dtype=np.float32)[labels]


def ranked_gradients(layer: LastLayer, labels: NDArray[np.int64], limit: int) -> NDArray[np.float32]:
    """Gradients of the last layer in an order that is the same for all models, N×F with F at most ``limit``.

    The gradient is the outer product of the residuals (K) and the layer's inputs (D, with a 1 for the bias). Which
    unit of a layer does what is an accident of training: an attack network that learned from the gradients of a shadow
    model, unit by unit, could not read those of the target. So the residual of the label comes first and the others
    by falling size, and the inputs by falling magnitude. What exceeds the limit is cut off where it is smallest.
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


def projected_gradients(layer: LastLayer, limit: int, generator: torch.Generator) -> NDArray[np.float32]:
    """Gradients of the last layer as they are, N×F; projected at random where they have more than ``limit`` values.

    The projection is (A·residual) ⊗ (B·input) with Gaussian A and B, which keeps inner products of gradients in
    expectation and never makes a whole gradient.
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
    """Sizes of the two factors whose product has at most ``limit`` values; classes give way after inputs."""
    if classes * inputs <= limit:
        return classes, inputs
    height = min(classes, max(1, int(limit**0.5)))
    return height, max(1, min(inputs, limit // height))


def _outer(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.einsum("nk,nd->nkd", left, right).reshape(len(left), -1), dtype=np.float32)


class Scale:
    """Brings each input to mean 0 and one deviation on the records that train the attack network.

    Args:
        values: Of those records, N×F.
        compress: First pass through asinh(x / s), with s the median magnitude of what is not zero: linear for small
            values and logarithmic for large ones, for inputs that span orders of magnitude on both sides of zero.
        unit_norm: The deviation is 1 / √F instead of 1, so that a record's inputs have a norm of about 1 however many
            they are.
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
        """Scaled values, N×F float32, bounded by ±10 deviations: another model's may lie far outside."""
        scaled = (self._squeezed(values) - self._mean) / self._deviation
        bounded = np.clip(scaled, -_LARGEST_INPUT, _LARGEST_INPUT) * self._factor
        return torch.from_numpy(bounded.astype(np.float32))

    def _squeezed(self, values: NDArray[np.float32]) -> NDArray[np.floating]:
        return np.arcsinh(values / self._unit) if self._compress else values
