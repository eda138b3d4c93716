"""The spread of the classes' margins on clean images, in which margins of different classes are compared."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.models.targets.input_gradients import compute_margin_loss
from securitynet.models.targets.target import Target

BATCH = 256
"""Images per pass."""

MOST_SPREAD = 500
"""Most clean images from which the spread is measured."""


def measure_spread(target: Target, images: torch.Tensor) -> NDArray[np.float64]:
    """Measure the standard deviation of each class's margin over clean images, K, in logits.

    Args:
        target: The target.
        images: N×C×H×W uint8.
    """
    device, margins = target.backend.device, []
    with torch.inference_mode():
        for part in torch.split(images, BATCH):
            logits = target.module(part.to(device).float() / 255)
            goals = torch.arange(logits.shape[1], device=device)
            own = [-compute_margin_loss(logits, goal.expand(len(logits))) for goal in goals]
            margins.append(torch.stack(own, dim=1).double().cpu())
    return torch.cat(margins).std(dim=0).clamp_min(1e-12).numpy()
