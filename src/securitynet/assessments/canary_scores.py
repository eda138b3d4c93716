"""Scores by which an audit guesses which canaries a model was trained on; they use the weights and no coin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from securitynet.devices import resolve_device
from securitynet.models.sources.weights import read_state_dict
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.planned_training import make_initial_network
from securitynet.models.training.batches import Feed
from securitynet.models.training.canaries import DatasetWithCanaries
from securitynet.models.training.evaluation import take_main_output
from securitynet.models.training.trainable import Architecture
from securitynet.models.training.training_defense import NO_DEFENSE, TrainingDefense

GRADIENT_NUMBERS = 1 << 25
"""Numbers in the gradients of single canaries that are held at once: 128 MiB of them."""

_SMALLEST = 1e-12
"""Lower bound of the gradients' norms."""


@dataclass(frozen=True, eq=False)
class CanaryScores:
    """Scores of canaries, higher meaning "more likely trained on".

    Attributes:
        black_box: Minus the cross-entropy loss of the model on each canary, N.
        white_box: How far the training moved the weights along the canary's own gradient, N; see `score_canaries`.
    """

    black_box: NDArray[np.float64]
    white_box: NDArray[np.float64]


def score_canaries(
    trained: TargetRecord,
    weights: Path,
    placed: DatasetWithCanaries,
    *,
    architecture: Architecture,
    defense: TrainingDefense | None = None,
    device: str = "auto",
) -> CanaryScores:
    """Score all canaries of a model.

    The white-box score of a canary is the inner product of w₀ − w, the movement of the weights in the training, with
    the direction of the canary's gradient at the final weights w: an included canary has moved the weights against its
    own gradient. Steinke, Nasr and Jagielski (2023, section 6) observe this product in each step of the training, which
    is stronger; here the initial weights, which follow from the seed in the model record, and the final ones suffice.

    Args:
        trained: The model record.
        weights: The weights file.
        placed: The dataset with the canaries of the record.
        architecture: The architecture of the record.
        defense: The defense that the model was trained with, if any; it determines the network's layers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: If the weights do not fit the network of the record.
    """
    place = resolve_device(device)
    shape = trained.num_classes, trained.channels, trained.image_size
    fresh = make_initial_network(architecture, shape, trained.recipe.seed)
    network = (defense or NO_DEFENSE).network(fresh, lambda text: None).to(place).eval()
    start = {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}
    network.load_state_dict(read_state_dict(weights)[0])
    movement = {name: start[name] - value.detach() for name, value in network.named_parameters() if name in start}
    feed = Feed(placed.images, placed.record.indices, place)
    labels = torch.tensor(placed.record.labels, device=place)
    losses = np.empty(len(labels))
    alignments = np.empty(len(labels))
    size = max(1, min(256, GRADIENT_NUMBERS // sum(value.numel() for value in movement.values())))
    for positions, images in feed.batches(torch.split(torch.arange(len(labels)), size)):
        inputs, wanted = trained.preprocessing(images), labels[positions.to(place)]
        rows = positions.numpy()
        with torch.inference_mode():
            logits = take_main_output(network(inputs)).double()
            losses[rows] = functional.cross_entropy(logits, wanted, reduction="none").cpu().numpy()
        alignments[rows] = align_movement(network, movement, inputs, wanted).cpu().numpy()
    return CanaryScores(-losses, alignments)


def align_movement(
    network: nn.Module,
    movement: dict[str, torch.Tensor],
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Compute inner products of a movement of the weights with the direction of each record's loss gradient.

    Args:
        network: The network at the weights at which the gradients are taken.
        movement: A tensor for each trainable parameter, by name.
        inputs: Preprocessed images, N×C×H×W.
        labels: N int64.

    Returns:
        N, in the unit of the movement; 0 where the gradient is 0.
    """
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    varied = {name: parameters.pop(name) for name in movement}
    fixed = {**parameters, **dict(network.named_buffers())}

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = take_main_output(functional_call(network, {**fixed, **weights}, (image[None],)))
        return functional.cross_entropy(logits, label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(varied, inputs, labels)
    products = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    squares = torch.zeros_like(products)
    for name, gradient in gradients.items():
        flat = gradient.flatten(1)
        products += (flat @ movement[name].flatten()).double()
        squares += flat.square().sum(dim=1).double()
    return products / squares.sqrt().clamp_min(_SMALLEST)
