"""Optimizers of a recipe, and their learning rates."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from securitynet.models.training.recipe import Recipe

_FACTOR = "rate_factor"
"""Key in a parameter group: factor of its learning rate, if that is not 1."""


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Create the recipe's optimizer for all weights that require gradients."""
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, lr=rate, betas=(recipe.momentum, 0.999), weight_decay=decay)
    biases = _list_norm_biases(module) if recipe.bias_rate != 1 else []
    known = {id(bias) for bias in biases}
    groups = [{"params": [weight for weight in weights if id(weight) not in known]}]
    if biases:
        # Decay is multiplied by the rate: divided by the factor, it stays what it is for other weights.
        factor = recipe.bias_rate
        groups.append({"params": biases, _FACTOR: factor, "lr": rate * factor, "weight_decay": decay / factor})  # type: ignore[dict-item]
    nesterov = recipe.optimizer == "nesterov"
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, weight_decay=decay, nesterov=nesterov)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups, each times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(_FACTOR, 1)


def _list_norm_biases(module: nn.Module) -> list[nn.Parameter]:
    """Trainable biases of batch norms."""
    biases = [layer.bias for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.bias is not None]
    return [bias for bias in biases if bias.requires_grad]
