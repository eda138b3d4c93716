"""What a training does with each batch. Defenses that train otherwise have procedures of their own."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from securitynet.models.training import losses
from securitynet.models.training.batches import Feed, training_batches
from securitynet.models.training.recipe import Recipe
from securitynet.randomness import generator


class Run(Protocol):
    """A training under way, as procedures see it.

    Attributes:
        module: The network, on the device.
        feed: Its training records.
        targets: Labels or posteriors, one per record, on the device.
        recipe: How it is trained.
        optimizer: Of the network's weights.
        device: Where.
        layout: In which images go through the network.
    """

    module: nn.Module
    feed: Feed
    targets: torch.Tensor
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    device: torch.device
    layout: torch.memory_format

    def forward(self, batch: torch.Tensor, module: nn.Module | None = None) -> torch.Tensor:
        """Logits for images as the feed gives them, N×K; of the network, or of a wrapper of it."""
        ...


class Procedure:
    """The usual one: records in a random order, one gradient step a batch.

    All randomness must derive from the recipe's seed and the epoch's number, so that a run that is killed and goes on
    ends with the same weights; whatever else it needs for that belongs into `state`.
    """

    def identity(self) -> dict[str, Any]:
        """All that decides the weights beside recipe and data, as JSON types."""
        return {}

    def begin(self, run: Run) -> None:
        """Prepare: the network is on its device, and a checkpoint has not been read yet."""

    def end(self, run: Run) -> None:
        """Leave the network as plain as it came, whether the training went well or not."""

    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        """Positions of the records of each batch of an epoch, in order."""
        count = len(run.feed)
        order = torch.randperm(count, generator=generator(run.recipe.seed, "order", epoch))
        return training_batches(count, run.recipe.batch_size, order)

    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Mean loss of a batch, a scalar with gradient; arguments as for `step`."""
        return losses.batch_loss(logits, targets, run.recipe)

    def step(
        self, run: Run, batch: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change the weights by one batch.

        Args:
            run: The training.
            batch: Images, augmented, N×C×H×W.
            targets: Of them.
            positions: Of the records in the feed, N int64 on the CPU.

        Returns:
            Mean loss and logits, without gradients.
        """
        run.optimizer.zero_grad(set_to_none=True)
        logits = run.forward(batch)
        loss = self.loss(run, logits, targets, batch, positions)
        loss.backward()  # type: ignore[no-untyped-call]
        if run.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(run.module.parameters(), run.recipe.clip_norm)
        run.optimizer.step()
        return loss.detach(), logits.detach()

    def state(self) -> dict[str, Any]:
        """What must be kept in a checkpoint: tensors, numbers, strings, and lists and tables of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
