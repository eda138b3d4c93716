"""Lookahead (Zhang et al., 2019, arXiv 1907.08610) with the schedule of Jordan (2024, arXiv 2404.00498)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

_INTERVAL = 5
_STRONGEST = 0.95**_INTERVAL


class Lookahead:
    """A running average of a network's weights and running statistics, to which they are pulled.

    After every fifth batch, the average moves towards the weights, and the weights are set to it. The share s of the
    average that stays grows with the cube of the training's progress from 0 to 0.95⁵. After the last batch, the weights
    are set to the average as it is.

    Attributes:
        average: The average, under the names of the network's state.

    Args:
        module: The network with its initial weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.average = {name: value.detach().clone() for name, value in self._state().items()}

    @torch.no_grad()
    def update(self, done: int, total: int) -> None:
        """Update average and weights after a batch.

        Args:
            done: Number of batches so far, this one included.
            total: Number of batches in all epochs.
        """
        if done % _INTERVAL and done < total:
            return
        for name, value in self._state().items():
            average = self.average[name]
            if done < total:
                average.lerp_(value, 1 - _STRONGEST * (done / total) ** 3)
            value.copy_(average)

    def restore(self, average: Mapping[str, torch.Tensor]) -> None:
        """Go on with an average from a checkpoint."""
        for name, value in self.average.items():
            value.copy_(average[name])

    def _state(self) -> dict[str, torch.Tensor]:
        """The network's own tensors of floating-point numbers."""
        return {name: value for name, value in self._module.state_dict().items() if value.is_floating_point()}
