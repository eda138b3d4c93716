"""Galleries of adversarial examples: the image, the amplified perturbation, and the perturbed image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.attacks.evasion._batch import Batch
from securitynet.methods.output import Gallery
from securitynet.metrics.evasion import write_epsilon

ROWS = 8
"""Number of images that a gallery shows."""


def draw_pictures(
    batch: Batch, examples: torch.Tensor, predictions: torch.Tensor
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Choose up to `ROWS` images that evade, each with the smallest epsilon that suffices.

    Args:
        batch: Images, n.
        examples: Perturbed images, A×E×n×C×H×W.
        predictions: Predictions for them, A×E×n.

    Returns:
        Pictures, R×3×C×H×W, and for each row record, label, prediction and position of the epsilon, R×4.
    """
    evades = (predictions != batch.labels) & batch.correct
    shown, rows = [], []
    for place in torch.nonzero(evades.any(dim=0).any(dim=0)).flatten()[:ROWS].tolist():
        e = int(evades[:, :, place].any(dim=0).int().argmax())
        a = int(evades[:, e, place].int().argmax())
        image, example = batch.images[place], examples[a, e, place]
        shown.append(torch.stack([_bytes(image), _bytes(_visible(example - image)), _bytes(example)]))
        rows.append([int(batch.indices[place]), int(batch.labels[place]), int(predictions[a, e, place]), e])
    if not shown:
        channels, height, width = batch.images.shape[1:]
        return np.empty((0, 3, channels, height, width), dtype=np.uint8), np.empty((0, 4), dtype=np.int64)
    return torch.stack(shown).numpy(), np.asarray(rows, dtype=np.int64)


def choose_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the `ROWS` rows to show, spread evenly over the epsilons, the smallest first."""
    rank = np.zeros(len(rows), dtype=np.int64)
    for e in np.unique(rows[:, 3]):
        of_epsilon = np.flatnonzero(rows[:, 3] == e)
        rank[of_epsilon] = np.arange(len(of_epsilon))
    chosen = np.lexsort((rows[:, 3], rank))[:ROWS]
    return chosen[np.lexsort((rank[chosen], rows[chosen, 3]))].astype(np.int64)


def make_galleries(
    shown: NDArray[np.uint8], sources: NDArray[np.int64], epsilons: NDArray[np.float64], class_names: Sequence[str]
) -> list[Gallery]:
    """Return the gallery, or nothing if no image evades or the images have neither one nor three channels.

    Args:
        shown: Pictures, R×3×C×H×W uint8.
        sources: Record, label, prediction and position of the epsilon of each row, R×4.
        epsilons: Budgets, E.
        class_names: Names of all classes.
    """
    if not len(shown) or shown.shape[2] not in (1, 3):
        return []
    rows = tuple(
        f"{_name(class_names, label)} → {_name(class_names, prediction)} (ε = {write_epsilon(float(epsilons[e]))})"
        for _, label, prediction, e in sources.tolist()
    )
    return [
        Gallery(
            title="Images that evade the model",
            caption="Each image is classified correctly, and misclassified once it is perturbed, shown for the "
            "smallest epsilon that suffices. The perturbation is amplified to be visible; grey means no change.",
            images=shown,
            rows=rows,
            columns=("image", "perturbation, amplified", "perturbed image"),
        )
    ]


def _visible(perturbation: torch.Tensor) -> torch.Tensor:
    largest = float(perturbation.abs().max())
    return 0.5 + perturbation / (2 * largest) if largest else torch.full_like(perturbation, 0.5)


def _bytes(image: torch.Tensor) -> torch.Tensor:
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def _name(class_names: Sequence[str], number: int) -> str:
    return class_names[number] if number < len(class_names) else str(number)
