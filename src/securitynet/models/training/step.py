"""`Procedure`: how a training processes each batch. Training defenses define their own procedures."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from securitynet.models.training import losses
from securitynet.models.training.batches import Feed, split_batches
from securitynet.models.training.recipe import Recipe
from securitynet.randomness import make_generator


class Run(Protocol):
    """A training in progress, as procedures see it.

    Attributes:
        module: The network, on the device.
        feed: The training records.
        targets: Labels or posteriors, one per record, on the device.
        recipe: The recipe.
        optimizer: Optimizer of the network's weights.
        device: The device.
        layout: Memory format of the images.
    """

    module: nn.Module
    feed: Feed
    targets: torch.Tensor
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    device: torch.device
    layout: torch.memory_format

    def forward(self, batch: torch.Tensor, module: nn.Module | None = None) -> torch.Tensor:
        """Compute logits, N×K.

        Args:
            batch: Images as the feed returns them, N×C×H×W.
            module: Another network to use instead, such as a wrapper.
        """
        ...


class Procedure:
    """The standard procedure: records in random order, one gradient step per batch.

    All randomness must be derived from the seed of the recipe and the number of the epoch, so that an interrupted run
    ends with the same weights. Anything else that a procedure needs for this belongs in `state`.
    """

    def identity(self) -> dict[str, Any]:
        """Everything that determines the weights besides recipe and data, as JSON types."""
        return {}

    def begin(self, run: Run) -> None:
        """Prepare the training. The network is on its device; no checkpoint has been read yet."""

    def end(self, run: Run) -> None:
        """Clean up the network, whether the training succeeded or not."""

    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        """Positions of the records of each batch of an epoch, in order."""
        count = len(run.feed)
        order = torch.randperm(count, generator=make_generator(run.recipe.seed, "order", epoch))
        return split_batches(count, run.recipe.batch_size, order)

    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Compute the mean loss of a batch, a scalar with gradient.

        Args:
            run: The training.
            logits: N×K.
            targets: Labels or posteriors of the batch.
            batch: Images, augmented, N×C×H×W.
            positions: Positions of the records in the feed, N int64 on the CPU.
        """
        return losses.compute_batch_loss(logits, targets, run.recipe)

    def step(
        self, run: Run, batch: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the weights with one batch.

        Args:
            run: The training.
            batch: Images, augmented, N×C×H×W.
            targets: Labels or posteriors of the batch.
            positions: Positions of the records in the feed, N int64 on the CPU.

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
        """State for a checkpoint: tensors, numbers and strings, and lists and dictionaries of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
