"""`RepairDefense`: the base class of defenses that remove a backdoor from a trained model, and the steps they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from securitynet.errors import ModelError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets import heads
from securitynet.models.targets.heads import Head
from securitynet.models.targets.outputs import take_scores
from securitynet.models.training.training_defense import Defense
from securitynet.randomness import make_generator

ATTEMPTS = 5
"""Number of learning rates that are tried, each a third of the one before."""

HELD_OUT = 5
"""One in so many clean images is not trained on, and judges the learning rate."""

LARGEST_LOSS = 0.02
"""Loss of accuracy on these images from which a learning rate counts as too large."""

_BATCH = 256
"""Images per pass without gradients."""


@dataclass(frozen=True, eq=False)
class ReconstructedTrigger:
    """A trigger that a search found in the model.

    Attributes:
        label: The class to which it sends images.
        mask: H×W, in [0, 1].
        pattern: C×H×W, in [0, 1].
    """

    label: int
    mask: torch.Tensor
    pattern: torch.Tensor

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Put the trigger on images, N×C×H×W in [0, 1]."""
        mask = self.mask.to(images.device)
        return torch.lerp(images, self.pattern.to(images.device).expand_as(images), mask.expand_as(images))


@dataclass(frozen=True, eq=False)
class RepairTask:
    """A model to repair, and what its owner has.

    Attributes:
        network: The network with its weights, which are changed in place.
        images: Clean images with correct labels, N×C×H×W uint8.
        labels: Their classes, N int64.
        triggers: Triggers that were reconstructed from the model, the smallest first.
        preprocessing: Applied to images in [0, 1] before the network.
        head: What the network emits.
        seed: Seed of all randomness.
        report_progress: Called with the number of steps done and the total.
        kept: Accuracy on the images held out that is to be kept, in [0, 1]; None for that of the network as it is. Of
            several repairs in turn, each is measured by the accuracy before the first.
    """

    network: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    triggers: tuple[ReconstructedTrigger, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    head: Head = "logits"
    seed: int = 0
    report_progress: Callable[[int, int], None] = lambda done, total: None
    kept: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, N×C×H×W in [0, 1], with gradients; N×K."""
        outputs = self.network(self.preprocessing(images))
        return heads.to_logits(take_scores(outputs, "The network"), self.head)

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images in [0, 1] and labels of some rows, on the network's device."""
        return self.images[rows].to(self.device).float().div_(255), self.labels[rows].to(self.device)

    def batches(self, size: int, purpose: str, epoch: int = 0, rows: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Rows of images in random order, in batches of about ``size``.

        Args:
            size: Images in a batch.
            purpose: Names the order, together with the seed.
            epoch: Number of the pass.
            rows: The images to take; all by default.
        """
        count = len(self.images) if rows is None else len(rows)
        order = torch.randperm(count, generator=make_generator(self.seed, f"repair {purpose}", epoch))
        return list(torch.tensor_split(order if rows is None else rows[order], max(1, round(count / size))))

    def measure_accuracy(self, rows: torch.Tensor | None = None) -> float:
        """Accuracy on clean images, in [0, 1], in evaluation mode; the network's mode is restored.

        Args:
            rows: The images to take; all by default.
        """
        chosen = torch.arange(len(self.images)) if rows is None else rows
        training = self.network.training
        self.network.eval()
        correct = 0
        try:
            with torch.inference_mode():
                for part in torch.split(chosen, _BATCH):
                    images, labels = self.batch(part)
                    correct += int((self.logits(images).argmax(dim=1) == labels).sum())
        finally:
            self.network.train(training)
        return correct / len(chosen)

    def hold_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows to judge the fine-tuning by, and the others, to train on; the same each time.

        Of fewer than `HELD_OUT` images, all serve both.
        """
        order = torch.randperm(len(self.images), generator=make_generator(self.seed, "repair held out"))
        count = len(order) // HELD_OUT
        return (order[:count], order[count:]) if count else (order, order)

    def accuracy_to_keep(self) -> float:
        """``kept``, or the network's accuracy on the images held out, in [0, 1]."""
        return self.measure_accuracy(self.hold_out()[0]) if self.kept is None else self.kept


class RepairDefense(Defense):
    """A defense of a trained model: it changes the weights so that a backdoor no longer works.

    It needs clean images with correct labels, and neither the training data nor the trigger.
    """

    stage: ClassVar[Literal["training", "output", "repair"]] = "repair"
    sweep: ClassVar[tuple[dict[str, Any], ...]] = ()  # it does not defend against the attacks of "what would help"
    needs_triggers: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name in the registry: that of the file, with dashes."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @abstractmethod
    def repair(self, task: RepairTask) -> tuple[str, ...]:
        """Change the weights of ``task.network`` in place.

        Args:
            task: The network, clean images, and the triggers that were reconstructed.

        Returns:
            Notes for the reader of the model record.

        Raises:
            ModelError: If the method does not apply to this network, or its weights diverge.
        """


ChangeBatch = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def fine_tune(
    task: RepairTask,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    change: ChangeBatch | None = None,
    after_step: Callable[[], None] | None = None,
    started: int = 0,
    accuracy: float | None = None,
) -> None:
    """Train on the clean images with correct labels: SGD with momentum 0.9 and a cosine schedule.

    A fifth of the images is not trained on. If the accuracy on these falls by more than `LARGEST_LOSS`, or the loss is
    not finite, the learning rate is too large: the weights are restored, and the training starts again with a third of
    it, up to `ATTEMPTS` times; if that is of no use, the weights of the attempt with the highest accuracy are taken.

    Args:
        task: The network and the images.
        epochs: Number of passes.
        learning_rate: First learning rate.
        batch_size: Images per step.
        change: Changes the images of a batch, N×C×H×W in [0, 1], before the network sees them.
        after_step: Called after each step, for instance to keep pruned weights at zero.
        started: Steps of the caller that are done already, for the progress.
        accuracy: That on the images held out that is to be kept; by default ``task.accuracy_to_keep()``.

    Raises:
        ModelError: If the loss is not finite with any of the learning rates.
    """
    held, used = task.hold_out()
    least = (task.accuracy_to_keep() if accuracy is None else accuracy) - LARGEST_LOSS
    before = _copy_weights(task.network)
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    for attempt in range(ATTEMPTS):
        rate = learning_rate / 3**attempt
        try:
            _train(task, used, epochs, rate, batch_size, change, after_step, started)
            now = task.measure_accuracy(held)
            if now >= least:
                return
            if best is None or now > best[0]:
                best = now, _copy_weights(task.network)
        except ModelError:
            if best is None and attempt == ATTEMPTS - 1:
                raise
        task.network.load_state_dict(before)
    assert best is not None
    task.network.load_state_dict(best[1])


def _copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _train(
    task: RepairTask,
    used: torch.Tensor,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    change: ChangeBatch | None,
    after_step: Callable[[], None] | None,
    started: int,
) -> None:
    weights = [weight for weight in task.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=learning_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    random = make_generator(task.seed, "repair changes")
    task.network.train()
    for epoch in range(epochs):
        for rows in task.batches(batch_size, "fine-tuning", epoch, used):
            images, labels = task.batch(rows)
            if change is not None:
                images = change(images, random)
            optimizer.zero_grad()
            loss = functional.cross_entropy(task.logits(images), labels)
            check_finite_loss(loss)
            torch.autograd.backward(loss)
            optimizer.step()
            if after_step is not None:
                after_step()
        schedule.step()
        task.report_progress(started + epoch + 1, started + epochs)
    task.network.eval()


def check_finite_loss(loss: torch.Tensor) -> None:
    """Raise `ModelError` if a loss is not finite."""
    if not bool(torch.isfinite(loss)):
        raise ModelError("The repair diverged: the loss is not finite.", hint="Use a smaller learning rate.")


def list_neurons(network: nn.Module) -> list[nn.Module]:
    """Layers whose output channels are the neurons that can be pruned.

    These are the batch norms, if there are any; else the convolutions and the linear layers except for the last, whose
    outputs are the classes.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    if norms:
        return list(norms)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return list(layers[:-1])


class PruneMask:
    """Weights of single neurons that are held at zero.

    Args:
        bias: Whether a pruned neuron's bias is held at zero too.
    """

    def __init__(self, *, bias: bool) -> None:
        self._pruned: list[tuple[nn.Module, torch.Tensor]] = []
        self._bias = bias

    def add(self, layer: nn.Module, channels: torch.Tensor) -> None:
        """Prune channels (int64) of a layer."""
        self._pruned.append((layer, channels))

    @torch.no_grad()
    def enforce(self) -> None:
        """Set the weights to zero."""
        for layer, channels in self._pruned:
            for name in ("weight", "bias") if self._bias else ("weight",):
                values = getattr(layer, name, None)
                if isinstance(values, torch.Tensor):
                    values[channels.to(values.device)] = 0
