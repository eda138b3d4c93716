"""Factors on the neurons of a layer: small changes of a network's weights that can be optimised like inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class NeuronFactors:
    """Factors of a layer's neurons, applied to its outputs: weights by m + δ, biases by 1 + ξ.

    Wu and Wang, "Adversarial neuron pruning purifies backdoored deep models" (2021), equation 3.

    Args:
        layer: A batch norm, convolution or linear layer.
        device: Where its outputs are.
    """

    def __init__(self, layer: nn.Module, device: torch.device) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        self.mask = torch.ones(len(weight), device=device, requires_grad=True)
        self.delta = torch.zeros(len(weight), device=device)
        self.xi = torch.zeros(len(weight), device=device)
        self.handle: RemovableHandle = layer.register_forward_hook(self._scale)

    def randomise(self, epsilon: float, random: torch.Generator) -> None:
        """Draw small changes, which require gradients."""
        self.delta, self.xi = (
            ((torch.rand(len(self.mask), generator=random) * 2 - 1) * epsilon).to(self.mask.device).requires_grad_()
            for _ in range(2)
        )

    def clear(self) -> None:
        """Set the changes to zero."""
        self.delta, self.xi = torch.zeros_like(self.delta), torch.zeros_like(self.xi)

    def _scale(self, layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, *(1,) * (output.ndim - 2))
        bias: torch.Tensor | None = getattr(layer, "bias", None)
        factor = (self.mask + self.delta).view(shape)
        if bias is None:
            return output * factor
        return (output - bias.view(shape)) * factor + (bias * (1 + self.xi)).view(shape)
