"""Loss and accuracy of a network in evaluation mode."""

from __future__ import annotations

import torch
from torch import nn

from securitynet.devices import explain_errors
from securitynet.errors import ModelError, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.outputs import take_scores
from securitynet.models.training import losses
from securitynet.models.training.batches import Feed
from securitynet.models.training.recipe import Recipe

_BATCH = 256
"""Records at once, at least: without gradients there is room for more than in training."""


def evaluate_feed(
    module: nn.Module, feed: Feed, targets: torch.Tensor, recipe: Recipe, preprocessing: Preprocessing
) -> tuple[float, float]:
    """Compute the mean loss of a recipe, and the accuracy; the network's mode is restored.

    Args:
        module: The network, on the feed's device.
        feed: The images.
        targets: Labels or posteriors on the same device, as `losses.check_targets` returns them.
        recipe: The recipe that names the loss.
        preprocessing: Applied to images before the network.
    """
    training = module.training
    module.eval()
    loss_sum = torch.zeros((), device=targets.device)
    correct = torch.zeros((), device=targets.device, dtype=torch.int64)
    try:
        with torch.inference_mode(), explain_errors():
            for positions, batch in feed.batches(torch.split(torch.arange(len(feed)), max(recipe.batch_size, _BATCH))):
                wanted = targets[positions.to(targets.device)]
                logits = take_main_output(module(preprocessing(batch)))
                losses.check_output_shape(logits, targets)
                loss_sum += losses.compute_batch_loss(logits, wanted, recipe) * len(positions)
                correct += (logits.argmax(dim=1) == losses.find_classes(wanted)).sum()
    finally:
        module.train(training)
    return float(loss_sum) / len(feed), int(correct) / len(feed)


def take_main_output(outputs: object) -> torch.Tensor:
    """The logits in the return value of a network."""
    try:
        return take_scores(outputs, "The network")
    except TargetError as error:
        raise ModelError(error.message, hint=error.hint) from error
