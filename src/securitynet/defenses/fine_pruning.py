"""Fine-pruning: channels that clean images do not activate are removed, and the model is trained further."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from typing_extensions import override

from securitynet.defenses._repair import PruneMask, RepairDefense, RepairTask, fine_tune
from securitynet.errors import ModelError

_BATCH = 256


class FinePruning(RepairDefense):
    """Prunes the last convolution in ascending order of the mean activation, then fine-tunes.

    Liu et al., "Fine-pruning: defending against backdooring attacks on deep neural networks" (2018), section 3. A
    backdoor often uses channels that clean images leave inactive; fine-tuning removes what those channels share with
    the others.

    Attributes:
        tolerance: Largest loss of accuracy on the clean images by pruning alone (0.04 in the paper's evaluation).
        epochs: Passes of fine-tuning over the clean images.
        learning_rate: First learning rate; one that breaks the network is divided by three.
        batch_size: Images per step.
    """

    tolerance: float = Field(default=0.04, ge=0, lt=1, description="Largest loss of accuracy by pruning alone.")
    epochs: int = Field(default=20, ge=1, description="Passes over the clean images.")
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False, description="First learning rate.")
    batch_size: int = Field(default=64, ge=1, description="Images per step.")

    @override
    def repair(self, task: RepairTask) -> tuple[str, ...]:
        layers = _find_last_convolution(task.network)
        accuracy = task.accuracy_to_keep()
        order = torch.argsort(_measure_activations(task, layers[-1]), stable=True)
        count = _count_prunable(task, layers, order, task.measure_accuracy() - self.tolerance)
        mask = PruneMask(bias=True)
        for layer in layers:
            mask.add(layer, order[:count])
        mask.enforce()
        fine_tune(
            task,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            after_step=mask.enforce,
            accuracy=accuracy,
        )
        return (f"Pruned {count} of {len(order)} channels of the last convolution.",)


def _find_last_convolution(network: nn.Module) -> list[nn.Module]:
    """The last convolution and, if one follows with as many channels, its batch norm."""
    layers = [layer for layer in network.modules() if not list(layer.children())]
    at = [number for number, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if not at:
        raise ModelError("Fine-pruning needs a convolution; this network has none.", hint="Choose i-bau or anp.")
    convolution = layers[at[-1]]
    assert isinstance(convolution, nn.Conv2d)
    following = layers[at[-1] + 1] if at[-1] + 1 < len(layers) else None
    if isinstance(following, nn.BatchNorm2d) and following.num_features == convolution.out_channels:
        return [convolution, following]
    return [convolution]


def _measure_activations(task: RepairTask, layer: nn.Module) -> torch.Tensor:
    """Mean activation of each channel after ReLU over the clean images, on the CPU."""
    sums: list[torch.Tensor] = []
    handle = layer.register_forward_hook(
        lambda _layer, _inputs, output: sums.append(output.clamp(min=0).mean(dim=(2, 3)).sum(dim=0).double().cpu())
    )
    task.network.eval()
    try:
        with torch.inference_mode():
            for rows in torch.split(torch.arange(len(task.images)), _BATCH):
                task.logits(task.batch(rows)[0])
    finally:
        handle.remove()
    return torch.stack(sums).sum(dim=0).clone() / len(task.images)


def _count_prunable(task: RepairTask, layers: list[nn.Module], order: torch.Tensor, least: float) -> int:
    """The largest number of channels, in this order, that can be pruned while the accuracy stays at ``least``.

    The accuracy is tried for steps of a twentieth of the channels. The weights are restored.
    """
    saved = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in layers]
    step, count = max(1, len(order) // 20), 0
    while count + step < len(order):
        mask = PruneMask(bias=True)
        for layer in layers:
            mask.add(layer, order[: count + step])
        mask.enforce()
        if task.measure_accuracy() < least:
            break
        count += step
    for layer, state in zip(layers, saved, strict=True):
        layer.load_state_dict(state)
    return count
