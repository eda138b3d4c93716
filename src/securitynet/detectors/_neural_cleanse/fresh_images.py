"""How well reconstructed triggers work on images, and on models, that the search has not seen.

A mask that was fitted to a few images may fail on others, and one that follows a natural feature of its class works on
clean models too. A backdoor's trigger works on any image of any class, and on this model alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.models.targets.target import Target

BATCH = 256


def count_hits(
    target: Target,
    images: torch.Tensor,
    classes: NDArray[np.int64],
    masks: NDArray[np.uint8],
    patterns: NDArray[np.uint8],
    goals: NDArray[np.int64],
    count: int,
) -> NDArray[np.int64]:
    """Count the images of each true class that each trigger sends to its label.

    Args:
        target: Under white-box access.
        images: F×C×H×W uint8.
        classes: True classes of the images, F.
        masks: P×H×W, 255 for a mask of 1.
        patterns: P×C×H×W.
        goals: Labels of the triggers, P.
        count: Number of true classes, K.

    Returns:
        P×K.
    """
    device = target.backend.device
    hits = np.zeros((len(goals), count), np.int64)
    for row, goal in enumerate(goals):
        mask = torch.from_numpy(masks[row]).to(device).float().div_(255)
        pattern = torch.from_numpy(patterns[row]).to(device).float().div_(255)
        reached = []
        for batch in torch.split(images, BATCH):
            shown = batch.to(device).float().div_(255)
            with torch.inference_mode():
                outputs = target.module(torch.lerp(shown, pattern[None], mask[None, None]))
            reached.append((outputs.argmax(dim=1) == int(goal)).cpu().numpy())
        if reached:
            hits[row] = np.bincount(classes[np.concatenate(reached)], minlength=count)[:count]
    return hits


def compute_success(
    hits: NDArray[np.int64], totals: NDArray[np.int64], goals: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(hits, images) of each trigger among the classes other than its own label, P each.

    Args:
        hits: From `count_hits`, P×K.
        totals: Images of each class, K.
        goals: Labels of the triggers, P; a label beyond the K classes has no images of its own.
    """
    others = np.arange(len(totals))[None, :] != goals[:, None]
    return (hits * others).sum(axis=1), (totals[None, :] * others).sum(axis=1)
