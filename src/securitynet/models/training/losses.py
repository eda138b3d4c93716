"""Losses of the trainer. Posteriors are compared with posteriors, never with logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.training.recipe import Recipe

_SUM_TOLERANCE = 1e-3


def check_targets(targets: torch.Tensor | NDArray[np.generic], count: int, recipe: Recipe) -> torch.Tensor:
    """Convert targets to the form that `compute_batch_loss` takes.

    Args:
        targets: Labels, N integers from 0; or posteriors, N×K, rows summing to 1 (to 1e-3).
        count: N, the number of records.
        recipe: Its loss decides which of the two is accepted.

    Returns:
        int64 labels, or float32 posteriors; for the loss ``kl`` those at its temperature.

    Raises:
        ConfigurationError: If the loss does not accept such targets, or they are invalid.
    """
    values = torch.as_tensor(targets)
    if len(values) != count:
        raise ConfigurationError(f"There are {len(values)} training targets for {count} images.")
    if not values.is_floating_point():
        if values.ndim != 1 or (count and int(values.min()) < 0):
            raise ConfigurationError("Labels to train on must be one integer of at least 0 per image.")
        if recipe.loss != "cross-entropy":
            raise ConfigurationError(
                f"The loss {recipe.loss} compares posteriors, and the training targets are labels.",
                hint="Use the loss cross-entropy for labels.",
            )
        return values.long()
    values = values.float()
    if values.ndim != 2 or not bool(((values >= 0) & (values <= 1 + _SUM_TOLERANCE)).all()):
        raise ConfigurationError("Soft training targets must be posteriors: N×K values in [0, 1].")
    if bool(((values.sum(dim=1) - 1).abs() > _SUM_TOLERANCE).any()):
        raise ConfigurationError(
            "Soft training targets must be posteriors: each row must sum to 1.", hint="Pass posteriors, not logits."
        )
    if recipe.loss == "kl" and recipe.temperature != 1:
        # Posteriors determine the logits up to a constant per row, which the softmax removes again.
        values = (values.clamp_min(torch.finfo(torch.float32).tiny).log() / recipe.temperature).softmax(dim=1)
    return values


def check_output_shape(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Raise `ModelError` unless the network's outputs, N×K, suit all targets."""
    if logits.ndim != 2:
        shape = tuple(logits.shape)
        raise ModelError(f"The network returns a tensor of shape {shape}, not one row of logits per image.")
    classes = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    if (targets.ndim == 2 and logits.shape[1] != classes) or logits.shape[1] < classes:
        raise ModelError(
            f"The network has {logits.shape[1]} classes, and the training targets have {classes}.",
            hint="Build the architecture with the number of classes of the dataset.",
        )


def compute_batch_loss(logits: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Compute the mean loss of a batch, a scalar with gradient.

    - ``cross-entropy``: on labels or posteriors, with label smoothing.
    - ``mse``: squared difference between posteriors, **summed over classes** and averaged over records, so that the
      gradient does not vanish with many classes.
    - ``kl``: divergence of the network's posteriors at the temperature from the targets (which are at that temperature
      already), times the temperature squared (Hinton et al., 2015), so that gradients keep their size.

    Args:
        logits: N×K.
        targets: Targets as `check_targets` returns them.
        recipe: The recipe that names the loss.
    """
    if recipe.loss == "cross-entropy":
        return functional.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    if recipe.loss == "mse":
        return (logits.softmax(dim=1) - targets).square().sum(dim=1).mean()
    log_posteriors = (logits / recipe.temperature).log_softmax(dim=1)
    return functional.kl_div(log_posteriors, targets, reduction="batchmean") * recipe.temperature**2


def find_classes(targets: torch.Tensor) -> torch.Tensor:
    """Labels, N int64: the targets themselves, or the most probable class of each row."""
    return targets.argmax(dim=1) if targets.ndim == 2 else targets
