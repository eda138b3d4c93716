"""`fit`: trains targets, shadow models and surrogates.

An interrupted run that is resumed ends with bit-identical weights: the order of the records, the augmentation and the
dropout of an epoch depend on the seed and the number of the epoch only.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securitynet.datasets.base import Images
from securitynet.devices import (
    explain_errors,
    resolve_device,
    use_deterministic_kernels,
    uses_bfloat16,
)
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import hash_stably
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.optimise import choose_memory_format
from securitynet.models.training import losses
from securitynet.models.training.augment import augment, choose_mirrored
from securitynet.models.training.batches import Feed
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.models.training.evaluation import evaluate_feed, take_main_output
from securitynet.models.training.fingerprint import compute_run_fingerprint, hash_images, hash_tensor
from securitynet.models.training.image_initialisation import initialise_from_images
from securitynet.models.training.lookahead import Lookahead
from securitynet.models.training.loss_traces import LossTraces
from securitynet.models.training.optimizers import make_optimizer, set_learning_rate
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure
from securitynet.randomness import derive_seed, isolate_random_state, make_generator, seed_global_state
from securitynet.records import Record

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]

Targets = torch.Tensor | NDArray[np.generic]
"""Labels, N integers; or posteriors, N×K, rows summing to 1."""


class History(Record):
    """What happened in each epoch, in order.

    Attributes:
        learning_rate: Learning rate.
        train_loss: Mean loss over the batches, measured during training.
        train_accuracy: Share of records classified as their label (or most probable class), measured during training.
        validation_loss: Mean loss on the validation records after the epoch; empty without them.
        validation_accuracy: Accuracy on the validation records, in [0, 1].
        best_epoch: Epoch, from 0, whose weights are used; None without early stopping, where it is the last.
        stopped_early: Whether patience ran out before the last epoch.
        seconds: Time of all epochs in seconds, including those before an interruption.
    """

    learning_rate: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    train_accuracy: tuple[float, ...] = ()
    validation_loss: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()
    best_epoch: int | None = None
    stopped_early: bool = False
    seconds: float = 0.0

    @property
    def epochs_run(self) -> int:
        """Number of completed epochs."""
        return len(self.train_loss)


Progress = Callable[[int, int, History], None]
"""Called after each epoch with (epochs done, total epochs, history so far)."""

Note = Callable[[str], None]
"""Called with a sentence that the user should see."""


def fit(
    module: nn.Module,
    images: Images,
    targets: Targets,
    recipe: Recipe,
    *,
    indices: Indices | None = None,
    preprocessing: Preprocessing | None = None,
    validation: tuple[Images, Targets] | None = None,
    checkpoint: Path | None = None,
    data_fingerprint: str | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    note: Note | None = None,
    procedure: Procedure | None = None,
    traces: LossTraces | None = None,
) -> History:
    """Train a network in place; it stays on the device, in evaluation mode, with the weights of the last epoch.

    With ``recipe.patience``, the weights are those of the epoch with the lowest validation loss. The validation records
    are ``validation`` or, by default,
    a held-out share of the training records (`hold_out_positions`); never test records.

    The global random state is restored.

    Args:
        module: A network from preprocessed images to N×K logits, with its initial weights.
        images: N×C×H×W, uint8 in 0 to 255 (or floating point in [0, 1]): a tensor, a memory map, or decoded on access.
        targets: One per training record: labels in [0, K), or posteriors N×K. Which of the two a loss takes:
            see `securitynet.models.training.losses.check_targets`.
        recipe: How to train.
        indices: Records of ``images`` to train on, as many as there are targets; all by default.
        preprocessing: Applied to images before the network; by default only the scaling to [0, 1].
        validation: Images and targets for early stopping, instead of held-out training records.
        checkpoint: File that stores the state after each epoch, and from which a run resumes. It is not deleted, so
            a completed run is not repeated. A checkpoint of another run is ignored.
        data_fingerprint: Digest that stands for images, indices and preprocessing in the checkpoint's fingerprint; the
            images are hashed if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Called after each epoch.
        note: Called with messages about resumption and unusable checkpoints; None logs them.
        procedure: Processing of each batch; None for the standard step.
        traces: Filled with the loss of each training record after each epoch, at the cost of one more forward pass per
            epoch. The weights are the same with and without.

    Returns:
        The history of all epochs, including those before an interruption.

    Raises:
        ConfigurationError: If targets, images and recipe do not fit together.
        ModelError: If the network does not take the images, or the loss is not finite ("diverged").
    """
    note = note or logger.info
    place = resolve_device(device)
    preprocessing = preprocessing or Preprocessing()
    indices = np.arange(images.shape[0], dtype=np.int64) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(indices) < 2:
        raise ConfigurationError(f"{len(indices)} records are too few to train on.")
    values = losses.check_targets(targets, len(indices), recipe)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ModelError("The network to train has no trainable weights: all are frozen.")
    held: tuple[Images, torch.Tensor, Indices | None] | None = None
    if recipe.patience and validation is None:
        training, aside = hold_out_positions(len(indices), recipe)
        held = images, values[torch.from_numpy(aside)], indices[aside]
        indices, values = indices[training], values[torch.from_numpy(training)]
    elif validation is not None:
        held = validation[0], losses.check_targets(validation[1], int(validation[0].shape[0]), recipe), None
    file = CheckpointFile(checkpoint, note) if checkpoint else None
    fingerprint = ""
    if file:
        aside_digest = hash_tensor(held[1]) if held else ""
        if validation is not None:
            aside_digest += hash_images(validation[0], None, preprocessing)
        data = data_fingerprint or hash_images(images, indices, preprocessing)
        fingerprint = compute_run_fingerprint(recipe, data, indices, values, aside_digest, module)
        fingerprint = _extend_fingerprint(fingerprint, procedure, traces)
    with isolate_random_state(), torch.inference_mode(False), torch.enable_grad(), use_deterministic_kernels(place):
        module.to(place)
        feed = Feed(images, indices, place)
        initialise_from_images(module, feed, preprocessing)
        run = _Run(module, feed, values.to(place), recipe, preprocessing, place, procedure or Procedure())
        if traces is not None:
            traces.begin(indices)
            run.traces = traces
        if held:
            run.validation = Feed(held[0], held[2], place), held[1].to(place)
        try:
            run.procedure.begin(run)
            _train_epochs(run, file, fingerprint, note, progress)
        finally:
            run.procedure.end(run)
        if run.best is not None:
            module.load_state_dict(run.best)
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    module.eval()
    return run.history


def _extend_fingerprint(fingerprint: str, procedure: Procedure | None, traces: LossTraces | None) -> str:
    if procedure is not None:
        fingerprint = hash_stably([fingerprint, procedure.identity()])
    if traces is not None:  # without the losses of its first epochs, a run can't be continued
        fingerprint = hash_stably([fingerprint, "loss traces"])
    return fingerprint


def _train_epochs(
    run: _Run, file: CheckpointFile | None, fingerprint: str, note: Note, progress: Progress | None
) -> None:
    """Train all epochs that a checkpoint does not hold, and store the state after each."""
    if file and (state := file.read(fingerprint)):
        run.restore(state)
        note(f"Resumed after epoch {run.history.epochs_run} of {run.recipe.epochs}.")
    while not run.finished:
        run.epoch()
        if file and (run.finished or file.due()):
            file.write(run.state(fingerprint))
        if progress:
            progress(run.history.epochs_run, run.recipe.epochs, run.history)


class _Run:
    """A training in progress: everything that changes from epoch to epoch."""

    def __init__(
        self,
        module: nn.Module,
        feed: Feed,
        targets: torch.Tensor,
        recipe: Recipe,
        preprocessing: Preprocessing,
        device: torch.device,
        procedure: Procedure,
    ) -> None:
        self.procedure = procedure
        self.module = module
        self.feed = feed
        self.targets = targets
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.device = device
        self.layout = choose_memory_format(module, preprocessing(feed.fetch(torch.arange(2))))
        self.optimizer = make_optimizer(module, recipe)
        self.lookahead = Lookahead(module) if recipe.lookahead else None
        self._half = uses_bfloat16(recipe.precision, device)
        self.validation: tuple[Feed, torch.Tensor] | None = None
        self.traces: LossTraces | None = None
        self.history = History()
        self.best: dict[str, torch.Tensor] | None = None
        self._checked = False

    @property
    def finished(self) -> bool:
        return self.history.stopped_early or self.history.epochs_run >= self.recipe.epochs

    def epoch(self) -> None:
        """Train one epoch and extend the history."""
        start = time.perf_counter()
        number, seed = self.history.epochs_run, self.recipe.seed
        rate = self.recipe.learning_rate_at(number)
        set_learning_rate(self.optimizer, rate)
        seed_global_state(derive_seed(seed, "dropout", number))  # isolated by `fit`
        batches = self.procedure.batches(self, number)
        changes = make_generator(seed, "augmentation", number)
        mirrored = choose_mirrored(self.recipe.augment, len(self.feed), seed, number)
        self.module.train()
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        with explain_errors():
            for done, (positions, batch) in enumerate(self.feed.batches(batches)):
                if self.recipe.changes_rate_in_epochs:
                    set_learning_rate(self.optimizer, self.recipe.learning_rate_at(number + done / len(batches)))
                targets = self.targets[positions.to(self.device)]
                flips = None if mirrored is None else mirrored[positions]
                changed = augment(batch, self.recipe.augment, changes, flips)
                loss, logits = self.procedure.step(self, changed, targets, positions)
                if self.lookahead is not None:
                    self.lookahead.update(number * len(batches) + done + 1, self.recipe.epochs * len(batches))
                loss_sum += loss * len(positions)
                correct += (logits.argmax(dim=1) == losses.find_classes(targets)).sum()
        seen = max(1, sum(map(len, batches)))
        loss_mean = float(loss_sum) / seen
        if not math.isfinite(loss_mean):
            raise _diverged(number, half=self._half)
        history = self.history.model_dump()
        history["learning_rate"] += (rate,)
        history["train_loss"] += (loss_mean,)
        history["train_accuracy"] += (int(correct) / seen,)
        self._validate(history)
        if self.traces is not None:
            self.traces.append(self.module, self.feed, self.targets, self.preprocessing)
        history["seconds"] += time.perf_counter() - start
        self.history = History(**history)

    def forward(self, batch: torch.Tensor, module: nn.Module | None = None) -> torch.Tensor:
        """Compute logits, N×K, for images as the feed returns them; of the network, or of a wrapper."""
        inputs = self.preprocessing(batch).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
            logits = take_main_output((module or self.module)(inputs))
        if self._half:
            logits = logits.float()
        if not self._checked:
            losses.check_output_shape(logits, self.targets)
            self._checked = True
        return logits

    def _validate(self, history: dict[str, object]) -> None:
        if self.validation is None:
            return
        feed, targets = self.validation
        loss, accuracy = evaluate_feed(self.module, feed, targets, self.recipe, self.preprocessing)
        if not math.isfinite(loss):
            raise _diverged(self.history.epochs_run, half=self._half)
        earlier = self.history.validation_loss
        history["validation_loss"] = (*earlier, loss)
        history["validation_accuracy"] = (*self.history.validation_accuracy, accuracy)
        if not self.recipe.patience:
            return
        best = self.history.best_epoch
        if best is None or loss < earlier[best]:
            history["best_epoch"] = best = len(earlier)
            self.best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        history["stopped_early"] = len(earlier) - best >= self.recipe.patience

    def state(self, fingerprint: str) -> TrainingState:
        return TrainingState(
            fingerprint,
            self.history.epochs_run,
            self.module.state_dict(),
            self.optimizer.state_dict(),
            self.history.model_dump_json(),
            self.best,
            self.procedure.state(),
            None if self.traces is None else torch.from_numpy(self.traces.losses),
            None if self.lookahead is None else self.lookahead.average,
        )

    def restore(self, state: TrainingState) -> None:
        self.module.load_state_dict(state.module)
        self.optimizer.load_state_dict(state.optimizer)
        self.history = History.model_validate_json(state.history)
        self.best = state.best
        self.procedure.restore(state.procedure)
        if self.lookahead is not None and state.lookahead is not None:
            self.lookahead.restore(state.lookahead)
        if self.traces is not None:
            self.traces.begin(self.traces.records, state.losses)


def hold_out_positions(count: int, recipe: Recipe) -> tuple[Indices, Indices]:
    """Positions that a recipe with early stopping trains on, and positions that it validates on; each sorted.

    Args:
        count: Number of training records.
        recipe: Its share and its seed decide.

    Raises:
        ConfigurationError: If one of them would be empty.
    """
    number = round(count * recipe.validation_share)
    if not 0 < number < count - 1:
        raise ConfigurationError(
            f"Of {count} training records, {recipe.validation_share:.0%} cannot be held out for validation.",
            hint="Change the validation share, or set the patience to 0.",
        )
    order = torch.randperm(count, generator=make_generator(recipe.seed, "validation")).numpy().astype(np.int64)
    return np.sort(order[number:]), np.sort(order[:number])


def evaluate_network(
    module: nn.Module,
    images: Images,
    targets: Targets,
    *,
    indices: Indices | None = None,
    preprocessing: Preprocessing | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 256,
) -> tuple[float, float]:
    """Compute mean cross-entropy and accuracy of a network that emits logits; its mode is restored.

    Args:
        module: The network, which is moved to the device.
        images: As for `fit`.
        targets: One per record: labels, or posteriors, whose most probable class counts as the label.
        indices: Records of ``images``; all by default.
        preprocessing: Applied to images before the network.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: Records per batch.
    """
    place = resolve_device(device)
    module.to(place)
    feed = Feed(images, indices, place)
    recipe = Recipe(batch_size=batch_size)
    values = losses.check_targets(targets, len(feed), recipe).to(place)
    return evaluate_feed(module, feed, values, recipe, preprocessing or Preprocessing())


def _diverged(epoch: int, *, half: bool) -> ModelError:
    # On CPUs, bf16 gradients of convolutions over maps of a few pixels were seen to be no numbers at any learning rate.
    first = "Train with --precision fp32; otherwise lower" if half else "Lower"
    return ModelError(
        f"The training diverged at epoch {epoch + 1}: its loss is not finite.",
        hint=f"{first} the learning rate, or bound the gradient with --clip-norm.",
    )
