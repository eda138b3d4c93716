"""The networks that learn an attribute from embeddings: their inputs, their weights, and how far they are believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import nn

from securitynet.models.training.ensembles import predict_logits
from securitynet.randomness import isolate_random_state, seed_global_state

_LARGEST_INPUT = 10.0
_HEAVIEST = 4.0
_CHI_SQUARE = 2.706
"""The 90% quantile of the chi-square distribution with one degree of freedom: a one-sided test at 5%."""


def weigh_network(
    held_back: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    values: NDArray[np.int64],
    frequent: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> float:
    """Return the weight of a network's logits relative to the frequencies: the one with the highest likelihood.

    It is 0 unless the network increases the likelihood significantly (a one-sided likelihood-ratio test at 5%), and 1
    if no records were held back.

    Args:
        held_back: Records, and the logits (n×V) of networks that did not learn from them.
        values: Of the attribute, for all records of the dataset.
        frequent: Logarithms of the frequencies of the values, V.
        shift: Added to the logits before they are weighted; see `weigh_logits`.
    """
    if not held_back:
        return 1.0
    truth = values[np.concatenate([records for records, _ in held_back])]
    logits = np.concatenate([outputs for _, outputs in held_back])
    rows = np.arange(len(truth))

    def loss(weight: float) -> float:
        return -float(log_softmax(weigh_logits(logits, weight, frequent, shift), axis=1)[rows, truth].sum())

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.0, _HEAVIEST), method="bounded")
    return float(best.x) if 2 * (loss(0.0) - float(best.fun)) > _CHI_SQUARE else 0.0


def weigh_logits(
    logits: NDArray[np.float64], weight: float, frequent: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate between the log-frequencies (weight 0) and the network's log-posterior (weight 1).

    Balanced training removes the frequencies from the network's logits; the shift adds them.

    Args:
        logits: Of the network, N×V.
        weight: From 0 (frequencies alone) to 1 (the network alone).
        frequent: Log-frequencies of the V values.
        shift: What is added to the logits, V.
    """
    present = np.isfinite(frequent)
    whole = np.where(present, logits + np.where(present, shift, 0.0), 0.0)
    return np.where(present, weight * whole + (1 - weight) * np.where(present, frequent, 0.0), -np.inf)


def compute_logits(network: nn.Module, inputs: torch.Tensor) -> NDArray[np.float64]:
    """Logits of a network, N×V."""
    return np.asarray(predict_logits(network, (inputs,)).double().numpy())


class EmbeddingScale:
    """Standardises each feature on the training records and clips it to ±10.

    Args:
        values: Embeddings of the training records, N×D.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._mean = values.mean(axis=0, dtype=np.float64)
        deviation = values.std(axis=0, dtype=np.float64)
        # Units that are constant over all records carry no information; their rounding errors must not be amplified.
        self._constant = deviation <= 1e-6 * np.maximum(np.abs(self._mean), 1e-6)
        self._deviation = np.where(self._constant, 1.0, deviation)

    def __call__(self, values: NDArray[np.float32]) -> torch.Tensor:
        scaled = np.clip((values - self._mean) / self._deviation, -_LARGEST_INPUT, _LARGEST_INPUT)
        scaled[:, self._constant] = 0
        return torch.from_numpy(scaled.astype(np.float32))


def build_attack_network(width: int, neurons: int, values: int, seed: int) -> nn.Module:
    """A network with one hidden layer, with weights that follow from the seed.

    Args:
        width: Size of an embedding.
        neurons: Hidden neurons.
        values: Values of the attribute, which are the outputs.
        seed: Seed of the initial weights.
    """
    with isolate_random_state():
        seed_global_state(seed)
        return nn.Sequential(nn.Linear(width, neurons), nn.ReLU(), nn.Linear(neurons, values))


def weigh_values(values: torch.Tensor) -> torch.Tensor:
    """Return weights of mean 1 that give all values that occur the same total weight."""
    counts = torch.bincount(values)
    present = int((counts > 0).sum())
    return (len(values) / (present * counts[values])).float()
