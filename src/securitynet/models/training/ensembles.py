"""Many small networks trained together: one batched product for all instead of a loop (docs/architecture.md, "Speed").

The networks have the same layers; their data, its size, their initial weights and their order of records differ. The
result is what each would learn alone, up to rounding: a network whose epoch is complete waits for the others.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from securitynet.devices import resolve_device, use_deterministic_kernels
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.training.batched import Inputs, flatten_parameters, stack_networks, unflatten_parameters
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.randomness import make_generator
from securitynet.records import Record

__all__ = ["EnsembleTraining", "Inputs", "predict_logits", "train_together"]

logger = logging.getLogger(__name__)

SAVE_SECONDS = 10.0
"""A training that takes longer than this leaves a checkpoint each time it has passed."""

_VERSION = 1


class EnsembleTraining(Record):
    """How the networks are trained: with Adam, at a constant rate.

    Attributes:
        epochs: Passes over the records.
        batch_size: Records per batch; the last batch of an epoch may be smaller.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam (added to the gradient).
    """

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)


def train_together(
    networks: Sequence[nn.Module],
    inputs: Sequence[Inputs],
    labels: Sequence[torch.Tensor],
    training: EnsembleTraining,
    *,
    seeds: Sequence[int],
    weights: Sequence[torch.Tensor] | None = None,
    rows: Sequence[torch.Tensor] | None = None,
    device: str | torch.device = "auto",
    cache: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
    after_epoch: Callable[[], None] | None = None,
) -> None:
    """Train networks of one architecture in place, each on its own records; leave them on the CPU, in evaluation mode.

    All records are on the device at once; inputs that several networks share (the same tensors) are there once.

    Args:
        networks: M networks from rows of their inputs to logits. They may have neither buffers (batch norm) nor
            randomness (dropout).
        inputs: For each network, a tuple of float tensors.
        labels: For each network, N_m int64 classes.
        training: How to train.
        seeds: Seeds of the order of records, one per network.
        weights: For each network, N_m weights of its records in the loss, with mean 1; all 1 if None.
        rows: For each network, the rows of its inputs that are its N_m records; all of them, in order, if None.
        device: Where to train.
        cache: Folder in which a training of more than `SAVE_SECONDS` stores a checkpoint, from which it resumes if it
            is killed; None stores none.
        progress: Called with (epochs done, epochs in all).
        after_epoch: Called after each epoch, when the networks hold their weights so far. No checkpoint is then kept,
            since a run that resumed would not have seen the epochs before.

    Raises:
        ConfigurationError: If a network has no records, or the networks cannot be trained together.
        ModelError: If a loss is not finite.
    """
    chosen = [torch.arange(len(values[0])) for values in inputs] if rows is None else list(rows)
    _check(networks, chosen, inputs, labels)
    shares = weights or [torch.ones(len(values)) for values in labels]
    start = flatten_parameters(networks)
    checkpoint = None
    if cache is not None and after_epoch is None:
        fingerprint = _fingerprint(start, inputs, chosen, labels, shares, training, seeds)
        checkpoint = _Checkpoint(cache / "networks" / fingerprint[:32] / "checkpoint", fingerprint)
    # Largest first: the networks with records in a batch are then the first ones, and only they are computed.
    falling = sorted(range(len(networks)), key=lambda number: -len(labels[number]))
    networks, inputs, chosen, labels, shares, start, seeds = (
        [networks[number] for number in falling],
        [inputs[number] for number in falling],
        [chosen[number] for number in falling],
        [labels[number] for number in falling],
        [shares[number] for number in falling],
        start[falling],
        [seeds[number] for number in falling],
    )
    place = resolve_device(device)
    with torch.inference_mode(False), torch.enable_grad(), use_deterministic_kernels(place):
        # Copies, because tensors made under inference mode cannot be used for training.
        run = _Run(networks, start.clone().to(place), _Records.of(inputs, chosen, labels, shares, place), training)
        done = checkpoint.restore(run) if checkpoint else 0
        for epoch in range(done, training.epochs):
            orders = [
                torch.randperm(len(values), generator=make_generator(seed, "attack order", epoch))
                for values, seed in zip(labels, seeds, strict=True)
            ]
            if not run.epoch(orders):
                raise ModelError(
                    f"The training of the attack networks diverged at epoch {epoch + 1}: a loss is not finite.",
                    hint="Lower the learning rate.",
                )
            if checkpoint:
                checkpoint.maybe_write(run, epoch + 1)
            if after_epoch:
                unflatten_parameters(networks, run.weights)
                after_epoch()
            if progress:
                progress(epoch + 1, training.epochs)
    unflatten_parameters(networks, run.weights)
    for network in networks:
        network.eval()
    if checkpoint:
        checkpoint.remove()


@dataclass(frozen=True, eq=False)
class _Records:
    """The records of all networks, concatenated, on the device.

    Attributes:
        data: Inputs; those that networks share are there once.
        at: Row of ``data`` of each record.
        labels: Label of each record.
        shares: Weight in the loss of each record.
        starts: Position of the first record of each network, M.
    """

    data: Inputs
    at: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(
        cls,
        inputs: Sequence[Inputs],
        rows: Sequence[torch.Tensor],
        labels: Sequence[torch.Tensor],
        shares: Sequence[torch.Tensor],
        place: torch.device,
    ) -> _Records:
        different: dict[tuple[int, ...], Inputs] = {}
        for values in inputs:
            different.setdefault(tuple(id(value) for value in values), values)
        offsets, count = {}, 0
        for key, values in different.items():
            offsets[key], count = count, count + len(values[0])
        data = tuple(
            (parts[0].clone() if len(parts) == 1 else torch.cat(parts)).to(place)
            for parts in zip(*different.values(), strict=True)
        )
        at = [rows[m] + offsets[tuple(id(value) for value in values)] for m, values in enumerate(inputs)]
        lengths = torch.tensor([len(values) for values in labels])
        joined = [torch.cat(list(values)).to(place) for values in (at, labels, shares)]
        return cls(data, joined[0], joined[1], joined[2], lengths.cumsum(0) - lengths)


class _Run:
    """Weights, optimizer and records of all networks.

    Args:
        networks: The networks; only their architecture is used.
        weights: Weights of all networks, M×P on the device, changed in place.
        records: Their training records.
        training: How to train.
    """

    def __init__(
        self, networks: Sequence[nn.Module], weights: torch.Tensor, records: _Records, training: EnsembleTraining
    ) -> None:
        self.weights = weights
        self._records = records
        self._batch_size = training.batch_size
        # One row of weights per network: Adam then takes a few operations, however many layers there are.
        self._rows = [row.requires_grad_() for row in weights.detach().unbind()]
        self.optimizer = torch.optim.Adam(
            self._rows, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        first = records.at[records.starts.to(records.at.device)]
        probe = tuple(values[first].unsqueeze(1) for values in records.data)
        self._stack = stack_networks(networks, weights, probe)

    def epoch(self, orders: Sequence[torch.Tensor]) -> bool:
        """Train one epoch, each network in its order, the largest first; whether all losses were finite."""
        records = self._records
        place = records.at.device
        size = self._batch_size
        lengths = torch.tensor([len(order) for order in orders])
        padded = nn.utils.rnn.pad_sequence(list(orders), batch_first=True)  # padding has no weight
        there = torch.arange(padded.shape[1]) < lengths[:, None]
        in_batch = (lengths[:, None] - torch.arange(padded.shape[1]) // size * size).clamp(1, size)
        positions = (padded + records.starts[:, None]).to(place)
        at, labels = records.at[positions], records.labels[positions]
        shares = records.shares[positions] * (there / in_batch).to(place)
        total = torch.zeros((), device=place)
        for start in range(0, padded.shape[1], size):
            part = slice(start, start + size)
            active = int((lengths > start).sum())
            now = at[:active, part]
            flat = now.reshape(-1)
            rows = tuple(values.index_select(0, flat).view(*now.shape, *values.shape[1:]) for values in records.data)
            wanted, share = labels[:active, part].reshape(-1), shares[:active, part].reshape(-1)

            def loss(logits: torch.Tensor, wanted: torch.Tensor = wanted, share: torch.Tensor = share) -> torch.Tensor:
                return functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none") @ share

            value, gradient = self._stack.gradient(active, rows, loss)
            for number, row in enumerate(self._rows):
                row.grad = gradient[number] if number < active else None
            self.optimizer.step()
            total += value
        return bool(torch.isfinite(total))


class _Checkpoint:
    """The checkpoint of one training."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._file = CheckpointFile(path, logger.info)
        self._fingerprint = fingerprint
        self._last = time.monotonic()

    def restore(self, run: _Run) -> int:
        """Restore the last state of a run; returns the number of completed epochs."""
        state = self._file.read(self._fingerprint) if self._file.exists else None
        if state is None:
            return 0
        with torch.no_grad():
            run.weights.copy_(state.module["weights"])
        run.optimizer.load_state_dict(state.optimizer)
        return state.epochs_done

    def maybe_write(self, run: _Run, done: int) -> None:
        """Store the state, if the last time is long enough ago."""
        if time.monotonic() - self._last < SAVE_SECONDS:
            return
        weights = {"weights": run.weights.detach().cpu()}
        self._file.path.parent.mkdir(parents=True, exist_ok=True)
        self._file.write(TrainingState(self._fingerprint, done, weights, run.optimizer.state_dict(), "[]"))
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete it and its folder."""
        self._file.remove()
        if self._file.path.parent.is_dir():
            self._file.path.parent.rmdir()


def predict_logits(network: nn.Module, inputs: Inputs, *, batch_size: int = 8192) -> torch.Tensor:
    """Logits of a network on the CPU for rows of its inputs, N×K.

    Args:
        network: The network, in evaluation mode.
        inputs: A tuple of float tensors with N rows each.
        batch_size: Rows per forward pass.
    """
    count = len(inputs[0])
    with torch.inference_mode():
        rows = [
            network(*(values[start : start + batch_size].float() for values in inputs))
            for start in range(0, count, batch_size)
        ]
    return torch.cat(rows).clone()


def _fingerprint(
    start: torch.Tensor,
    inputs: Sequence[Inputs],
    rows: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    shares: Sequence[torch.Tensor],
    training: EnsembleTraining,
    seeds: Sequence[int],
) -> str:
    """Digest of everything that determines the result."""
    digest = hashlib.sha256(f"{_VERSION} {training.model_dump_json()} {list(seeds)}".encode())
    seen: dict[int, int] = {}
    for value in (start, *(v for values in inputs for v in values), *rows, *labels, *shares):
        number = seen.setdefault(id(value), len(seen))
        digest.update(f"{number} {value.dtype} {tuple(value.shape)} ".encode())
        if number == len(seen) - 1:
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _check(
    networks: Sequence[nn.Module],
    rows: Sequence[torch.Tensor],
    inputs: Sequence[Inputs],
    labels: Sequence[torch.Tensor],
) -> None:
    if not networks:
        raise ConfigurationError("There are no networks to train.")
    shapes = [[tuple(parameter.shape) for parameter in network.parameters()] for network in networks]
    if any(other != shapes[0] for other in shapes):
        raise ConfigurationError("Networks that are trained together must have the same layers.")
    if any(True for _ in networks[0].buffers()):
        raise ConfigurationError("Networks that are trained together cannot hold buffers, such as those of batch norm.")
    for chosen, values, classes in zip(rows, inputs, labels, strict=True):
        if len(classes) == 0:
            raise ConfigurationError("A network that is trained together with others has no records.")
        if len(chosen) != len(classes) or any(len(other) != len(values[0]) for other in values):
            raise ConfigurationError("Inputs and labels of a network differ in their number of records.")
