"""A model that answers at random, or by its batch, as a backend whose answers are averages over repeats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from securitynet.files import stable_hash
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.wrapped import WrappedBackend

REPEATS = 16
"""How often a model that runs here is asked for one answer."""

PAID_REPEATS = 4
"""How often an endpoint is."""


class AveragedBackend(WrappedBackend):
    """Each answer is the mean of several, each asked anew, in a batch of another order.

    Only for `--allow-random`: an average still varies, by the square root of the number of repeats less.

    Args:
        inner: Where answers come from.
        repeats: How many are averaged.
    """

    def __init__(self, inner: Backend, repeats: int = REPEATS) -> None:
        super().__init__(inner)
        self.repeats = repeats
        self.reference = inner.reference
        self.checksum = stable_hash({"inner": inner.checksum, "averaged": repeats}, 64)
        self.white_box = inner.white_box
        self.rounding = inner.rounding
        self.charges = inner.charges

    @property
    def module(self) -> nn.Module:
        """A network whose outputs, and gradients, are means over repeats."""
        return AveragedModule(self.inner.module, self.repeats)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `Backend.outputs`."""
        return self._mean(inputs, self.inner.fresh_outputs)

    def embeddings(self, inputs: torch.Tensor, layer: str | None = None) -> torch.Tensor:
        """See `Backend.embeddings`."""
        return self._mean(inputs, lambda shuffled: self.inner.embeddings(shuffled, layer))

    def in_half(self) -> AveragedBackend | None:
        """See `Backend.in_half`."""
        half = self.inner.in_half()
        return None if half is None else AveragedBackend(half, self.repeats)

    def _mean(self, inputs: torch.Tensor, ask: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        total: torch.Tensor | None = None
        for _ in range(self.repeats):
            order = torch.randperm(len(inputs), generator=generator)
            rows = ask(inputs[order.to(inputs.device)]).double()
            answers = torch.empty_like(rows).index_copy_(0, order, rows)
            total = answers if total is None else total + answers
        assert total is not None  # there is at least one repeat
        return (total / self.repeats).float()


class AveragedModule(nn.Module):
    """The mean of several passes of a network that answers at random.

    Args:
        inner: The network.
        repeats: Passes.
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
