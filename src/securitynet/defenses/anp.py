"""ANP: neurons that a small change of their weights turns against clean images are removed (adversarial pruning)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.defenses._repair import (
    PruneMask,
    RepairDefense,
    RepairTask,
    check_finite_loss,
    fine_tune,
    list_neurons,
)
from securitynet.errors import ModelError
from securitynet.models.targets.neuron_factors import NeuronFactors
from securitynet.randomness import make_generator


class Anp(RepairDefense):
    """Adversarial neuron pruning: learns a mask of the neurons under the worst small change of their weights.

    Wu and Wang, "Adversarial neuron pruning purifies backdoored deep models" (2021), section 4: the mask m minimises
    α · L(m ⊙ w, b) + (1 − α) · max L((m + δ) ⊙ w, (1 + ξ) ⊙ b) over |δ|, |ξ| ≤ ε (equation 5); neurons with a mask
    below the threshold are pruned, those with the smallest first. The paper trains no weight; small networks without
    batch norms lose too much accuracy by that, so fine-tuning follows here (``epochs=0`` leaves it out).

    Attributes:
        steps: Steps of the mask (paper: 2,000).
        learning_rate: Learning rate of the mask.
        epsilon: Largest relative change ε of weights and biases.
        alpha: Weight α of the loss without changes.
        threshold: Mask values below it are pruned.
        tolerance: Pruning ends before it costs more accuracy than this on the clean images.
        epochs: Passes of fine-tuning after the pruning.
        fine_tuning_rate: First learning rate of the fine-tuning.
        batch_size: Images per step.
    """

    steps: int = Field(default=200, ge=1, description="Steps of the mask (paper: 2,000).")
    learning_rate: float = Field(default=0.2, gt=0, allow_inf_nan=False, description="Learning rate of the mask.")
    epsilon: float = Field(default=0.4, gt=0, allow_inf_nan=False, description="Largest relative change of weights.")
    alpha: float = Field(default=0.2, ge=0, le=1, description="Weight of the loss without changes.")
    threshold: float = Field(default=0.2, gt=0, le=1, description="Mask values below it are pruned.")
    tolerance: float = Field(default=0.1, ge=0, lt=1, description="Largest loss of accuracy by pruning.")
    epochs: int = Field(default=15, ge=0, description="Passes of fine-tuning after the pruning.")
    fine_tuning_rate: float = Field(
        default=0.02, gt=0, allow_inf_nan=False, description="First learning rate of the fine-tuning."
    )
    batch_size: int = Field(default=128, ge=1, description="Images per step.")

    @override
    def repair(self, task: RepairTask) -> tuple[str, ...]:
        layers = list_neurons(task.network)
        if not layers:
            raise ModelError("ANP needs a hidden layer; this network has none.", hint="Choose i-bau.")
        accuracy = task.accuracy_to_keep()
        masks = self.learn_masks(task, layers)
        count, pruned = _prune(task, layers, masks, self.threshold, task.measure_accuracy() - self.tolerance)
        if self.epochs:
            fine_tune(
                task,
                epochs=self.epochs,
                learning_rate=self.fine_tuning_rate,
                batch_size=self.batch_size // 2 or 1,
                after_step=pruned.enforce,
                accuracy=accuracy,
            )
        return (f"Pruned {count} of {sum(map(len, masks))} neurons.",)

    def learn_masks(self, task: RepairTask, layers: list[nn.Module]) -> list[torch.Tensor]:
        """Learn the mask of each layer's neurons, in [0, 1].

        Args:
            task: The network and the images.
            layers: The layers, as `list_neurons` returns them.
        """
        for weight in task.network.parameters():
            weight.requires_grad_(False)
        task.network.eval()
        factors = [NeuronFactors(layer, task.device) for layer in layers]
        try:
            optimizer = torch.optim.SGD([one.mask for one in factors], lr=self.learning_rate, momentum=0.9)
            random, step = make_generator(task.seed, "anp changes"), 0
            while step < self.steps:
                for rows in task.batches(self.batch_size, "anp", step)[: self.steps - step]:
                    images, labels = task.batch(rows)
                    self._perturb(task, factors, images, labels, random)
                    attacked = functional.cross_entropy(task.logits(images), labels)
                    for one in factors:
                        one.clear()
                    plain = functional.cross_entropy(task.logits(images), labels)
                    loss = self.alpha * plain + (1 - self.alpha) * attacked
                    check_finite_loss(loss)
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
                    with torch.no_grad():
                        for one in factors:
                            one.mask.clamp_(0, 1)
                    step += 1
                task.report_progress(step, self.steps)
        finally:
            for one in factors:
                one.handle.remove()
            for weight in task.network.parameters():
                weight.requires_grad_(True)
        return [one.mask.detach().cpu() for one in factors]

    def _perturb(
        self,
        task: RepairTask,
        factors: list[NeuronFactors],
        images: torch.Tensor,
        labels: torch.Tensor,
        random: torch.Generator,
    ) -> None:
        """Set δ and ξ by one step of the signs of the gradients from a random start, as the authors do."""
        for one in factors:
            one.randomise(self.epsilon, random)
        changes = [change for one in factors for change in (one.delta, one.xi)]
        loss = functional.cross_entropy(task.logits(images), labels)
        gradients = torch.autograd.grad(loss, changes, allow_unused=True)
        with torch.no_grad():
            for change, gradient in zip(changes, gradients, strict=True):
                if gradient is not None:
                    change.add_(gradient.sign(), alpha=self.epsilon).clamp_(-self.epsilon, self.epsilon)


def _prune(
    task: RepairTask, layers: list[nn.Module], masks: list[torch.Tensor], threshold: float, least: float
) -> tuple[int, PruneMask]:
    """Prune the neurons below the threshold, the smallest masks first, while the accuracy stays at ``least``."""
    neurons = sorted(
        (float(value), layer, channel)
        for layer, mask in enumerate(masks)
        for channel, value in enumerate(mask.tolist())
        if value < threshold
    )
    saved = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in layers]

    def prune(count: int) -> PruneMask:
        for layer, state in zip(layers, saved, strict=True):
            layer.load_state_dict(state)
        pruned = PruneMask(bias=False)
        for _, layer_number, channel in neurons[:count]:
            pruned.add(layers[layer_number], torch.tensor([channel]))
        pruned.enforce()
        return pruned

    done, step = 0, max(1, len(neurons) // 20)
    while done < len(neurons):
        further = min(done + step, len(neurons))
        prune(further)
        if task.measure_accuracy() < least:
            break
        done = further
    return done, prune(done)
