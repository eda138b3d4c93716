"""Networks with amplified hidden layers."""

from __future__ import annotations

import torch
from torch import nn

from securitynet.errors import ModelError
from securitynet.models.targets.optimise import copy_network

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_WEIGHTED = (nn.Conv2d, nn.Linear)


def list_layers(network: nn.Module) -> list[str]:
    """Names of the hidden layers with a scale and a shift of each channel, in their order in the network.

    These are batch norms, which may have been folded into the convolution before them: a network in which one was
    folded has a convolution with a bias instead. So are hidden layers with a bias and no batch norm. The outputs of the
    last convolution or linear layer are the classes.

    Args:
        network: The network, as it is or with folded batch norms.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, (*_NORMS, *_WEIGHTED))]
    last = max((at for at, (_, layer) in enumerate(layers) if isinstance(layer, _WEIGHTED)), default=-1)
    names = []
    for at, (name, layer) in enumerate(layers):
        following = layers[at + 1][1] if at + 1 < len(layers) else None
        normalised = isinstance(layer, _WEIGHTED) and isinstance(following, _NORMS)  # that norm has not been folded
        if at != last and not normalised and isinstance(layer.weight, torch.Tensor) and layer.bias is not None:
            names.append(name)
    return names


def amplify(network: nn.Module, names: list[str], factor: float) -> nn.Module:
    """Copy a network, with the scale and the shift of some layers multiplied by a factor.

    Args:
        network: The network; it is not changed.
        names: Names of the layers.
        factor: The factor.

    Raises:
        ModelError: If the network cannot be copied.
    """
    changed = copy_network(network)
    if changed is None:
        raise ModelError("This network cannot be copied, so its weights cannot be amplified.")
    with torch.no_grad():
        for name in names:
            layer = changed.get_submodule(name)
            for values in (layer.weight, layer.bias):
                assert isinstance(values, torch.Tensor)
                values.mul_(factor)
    return changed
