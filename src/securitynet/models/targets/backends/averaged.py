"""A backend that averages repeated outputs of a model that is random, or depends on the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from typing_extensions import override

from securitynet.files import hash_stably
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.wrapped import WrappedBackend

REPEATS = 16
"""Number of passes that are averaged, for a model that runs in this process."""

PAID_REPEATS = 4
"""Number of requests that are averaged, for an endpoint."""


class AveragedBackend(WrappedBackend):
    """Averages several outputs for each image, each computed anew in a batch of another order.

    For `--allow-random` only: an average still varies; its deviation shrinks by the square root of the number of
    repeats.

    Args:
        inner: The backend that computes outputs.
        repeats: Number of outputs per average.
    """

    def __init__(self, inner: Backend, repeats: int = REPEATS) -> None:
        super().__init__(inner)
        self.repeats = repeats
        self.reference = inner.reference
        self.checksum = hash_stably({"inner": inner.checksum, "averaged": repeats}, 64)
        self.white_box = inner.white_box
        self.rounding = inner.rounding
        self.charges = inner.charges

    @property
    def module(self) -> nn.Module:
        """A network whose outputs and gradients are means over repeats."""
        return AveragedModule(self.inner.module, self.repeats)

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._mean(inputs, self.inner.fresh_outputs)

    @override
    def embeddings(self, inputs: torch.Tensor, layer: str | None = None) -> torch.Tensor:
        return self._mean(inputs, lambda shuffled: self.inner.embeddings(shuffled, layer))

    @override
    def in_half(self) -> AveragedBackend | None:
        half = self.inner.in_half()
        return None if half is None else AveragedBackend(half, self.repeats)

    def _mean(self, inputs: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        total: torch.Tensor | None = None
        for _ in range(self.repeats):
            order = torch.randperm(len(inputs), generator=generator)
            rows = compute(inputs[order.to(inputs.device)]).double()
            outputs = torch.empty_like(rows).index_copy_(0, order, rows)
            total = outputs if total is None else total + outputs
        assert total is not None  # there is at least one repeat
        return (total / self.repeats).float()


class AveragedModule(nn.Module):
    """The mean of several passes of a random network.

    Args:
        inner: The network.
        repeats: Number of passes.
    """

    def __init__(self, inner: nn.Module, repeats: int) -> None:
        super().__init__()
        self.inner = inner
        self.repeats = repeats

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Mean outputs, N×K."""
        passes = (self.inner(inputs) for _ in range(self.repeats))
        rows = [result[0] if isinstance(result, (tuple, list)) else result for result in passes]
        return torch.stack(rows).mean(dim=0)
