"""Early stopping of attack networks on known records that they do not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from securitynet.datasets.ordering import shuffle
from securitynet.models.training.batched import Inputs
from securitynet.models.training.ensembles import predict_logits

HELD_OUT_SHARE = 0.2
"""Share of the known members, and of the known non-members, on which the best epoch is chosen."""

FEWEST_HELD_OUT = 20
"""Smallest number of held-out members, and of non-members, with which an epoch is chosen.

With fewer, the choice is noise, and the records are missed in training: on the contract's overfitted target, where 10
of each could be held out, the AUC of ``mlp-posteriors`` fell from 0.75 to 0.63 to 0.71 over three seeds."""


def hold_out_records(members: torch.Tensor, seed: int) -> torch.Tensor:
    """Choose the records that a network does not learn from, N bool; none if too few are known.

    Args:
        members: Whether each known record is a member, N bool.
        seed: The only source of randomness.
    """
    held_out = torch.zeros(len(members), dtype=torch.bool)
    for group in (members, ~members):
        positions = np.flatnonzero(group.numpy())
        count = round(HELD_OUT_SHARE * len(positions))
        if count < FEWEST_HELD_OUT:
            return torch.zeros(len(members), dtype=torch.bool)
        held_out[torch.from_numpy(positions[shuffle(len(positions), "held out", seed)[:count]])] = True
    return held_out


@dataclass(eq=False)
class BestEpoch:
    """The weights of a network at the epoch with the lowest loss on held-out records, balanced between both groups.

    Attributes:
        network: The network that is being trained.
        inputs: Its inputs for the held-out records.
        members: Whether each of them is a member.
    """

    network: nn.Module
    inputs: Inputs
    members: torch.Tensor
    _loss: float = float("inf")
    _weights: dict[str, torch.Tensor] | None = None

    def update(self) -> None:
        """Store the weights if the loss is lower than in all epochs before."""
        if len(self.members):
            losses = functional.cross_entropy(
                predict_logits(self.network, self.inputs), self.members.long(), reduction="none"
            )
            loss = float((losses[self.members].mean() + losses[~self.members].mean()) / 2)
            if loss < self._loss:
                self._loss = loss
                self._weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def restore(self) -> None:
        """Give the network the weights of the best epoch; those of the last one if no records were held out."""
        if self._weights is not None:
            self.network.load_state_dict(self._weights)


def update_all(epochs: Sequence[BestEpoch]) -> None:
    """Update the best epoch of each network."""
    for epoch in epochs:
        epoch.update()
