"""Many small networks trained at once: one batched product for all, instead of one loop each (DESIGN, section 7).

The networks have the same layers; their data, its size, their initial weights and their order of records differ. What
comes out is what each would learn alone, but for rounding: a network whose epoch is over waits for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.trainer.environment import deterministic_kernels, resolve_device
from securitynet.models.trainer.randomness import generator
from securitynet.records import Record

Inputs = tuple[torch.Tensor, ...]
"""What a network takes, each with one row per record."""


class EnsembleTraining(Record):
    """How the networks are trained: with Adam, at a constant rate.

    Attributes:
        epochs: Passes over the records.
        batch_size: Records a batch; the last batch of an epoch may be smaller.
        learning_rate: Of Adam.
        weight_decay: Of Adam (added to the gradient).
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
    device: str | torch.device = "auto",
) -> None:
    """Train networks of one architecture in place, each on its own records; they are left on the CPU, evaluating.

    All records lie on the device at once, padded to the largest set.

    Args:
        networks: M networks from rows of their inputs to logits. They may hold neither buffers (batch norm) nor
            randomness (dropout).
        inputs: For each network a tuple of float tensors, N_m rows each.
        labels: For each network N_m int64 classes.
        training: How.
        seeds: Of the order of records, one per network.
        weights: For each network, N_m weights of its records in the loss, of mean 1; all 1 if None.
        device: Where to train.

    Raises:
        ConfigurationError: If a network has no records, or the networks cannot be trained together.
        ModelError: If a loss is not finite.
    """
    _check(networks, inputs, labels)
    place = resolve_device(device)
    sizes = [len(values) for values in labels]
    data = tuple(_padded(rows, place) for rows in zip(*inputs, strict=True))
    truth = _padded(labels, place)
    importance = _padded(weights or [torch.ones(size) for size in sizes], place)
    template = networks[0]
    names = [name for name, _ in template.named_parameters()]
    shapes = [parameter.shape for parameter in template.parameters()]
    lengths = [shape.numel() for shape in shapes]
    # One flat leaf per network: Adam then steps each network that has a batch, and leaves the others as they are.
    leaves = [
        torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).to(place).requires_grad_()
        for network in networks
    ]
    optimizer = torch.optim.Adam(leaves, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)

    def losses(flat: torch.Tensor, rows: Inputs, classes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(flat, lengths)
        values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        logits = functional_call(template, values, rows)
        return (functional.cross_entropy(logits, classes, reduction="none") * shares).sum()

    batched = vmap(losses)
    with torch.inference_mode(False), torch.enable_grad(), deterministic_kernels(place):
        for epoch in range(training.epochs):
            orders = [
                torch.randperm(size, generator=generator(seed, "attack order", epoch))
                for size, seed in zip(sizes, seeds, strict=True)
            ]
            total = torch.zeros((), device=place)
            for positions, present in _batches(orders, training.batch_size, truth.shape[1]):
                chosen, mask = positions.to(place), present.to(place)
                shares = importance.flatten()[chosen] * mask
                shares = shares / mask.sum(dim=1, keepdim=True).clamp_min(1)
                loss = batched(
                    torch.stack(leaves),
                    tuple(rows.flatten(0, 1)[chosen] for rows in data),
                    truth.flatten()[chosen],
                    shares,
                ).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                for leaf, active in zip(leaves, present.any(dim=1).tolist(), strict=True):
                    if not active:
                        leaf.grad = None
                optimizer.step()
                total += loss.detach()
            if not bool(torch.isfinite(total)):
                raise ModelError(
                    f"The training of the attack networks diverged at epoch {epoch + 1}: a loss is not finite.",
                    hint="Lower the learning rate.",
                )
    with torch.no_grad():
        for network, leaf in zip(networks, leaves, strict=True):
            pieces = torch.split(leaf.detach().cpu(), lengths)
            for parameter, piece in zip(network.parameters(), pieces, strict=True):
                parameter.copy_(piece.view(parameter.shape))
            network.eval()


def predict(network: nn.Module, inputs: Inputs, *, batch_size: int = 8192) -> torch.Tensor:
    """Logits of a network on the CPU for rows of its inputs, N×K."""
    count = len(inputs[0])
    with torch.inference_mode():
        rows = [
            network(*(values[start : start + batch_size].float() for values in inputs))
            for start in range(0, count, batch_size)
        ]
    return torch.cat(rows).clone()


def _batches(orders: Sequence[torch.Tensor], size: int, stride: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of the flattened data (M×B), and which of them are there (M×B), until the longest order is through."""
    for start in range(0, max(map(len, orders)), size):
        width = min(size, max(map(len, orders)) - start)
        positions = torch.zeros((len(orders), width), dtype=torch.int64)
        present = torch.zeros((len(orders), width))
        for number, order in enumerate(orders):
            rows = order[start : start + size]
            positions[number, : len(rows)] = rows
            positions[number] += number * stride
            present[number, : len(rows)] = 1
        yield positions, present


def _padded(rows: Sequence[torch.Tensor], place: torch.device) -> torch.Tensor:
    """M×N×… with zeros after the rows of the shorter ones."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(place)


def _check(networks: Sequence[nn.Module], inputs: Sequence[Inputs], labels: Sequence[torch.Tensor]) -> None:
    if not networks:
        raise ConfigurationError("There are no networks to train.")
    shapes = [[tuple(parameter.shape) for parameter in network.parameters()] for network in networks]
    if any(other != shapes[0] for other in shapes):
        raise ConfigurationError("Networks that are trained together must have the same layers.")
    if any(True for _ in networks[0].buffers()):
        raise ConfigurationError("Networks that are trained together cannot hold buffers, such as those of batch norm.")
    for rows, classes in zip(inputs, labels, strict=True):
        if len(classes) == 0:
            raise ConfigurationError("A network that is trained together with others has no records.")
        if any(len(values) != len(classes) for values in rows):
            raise ConfigurationError("Inputs and labels of a network differ in their number of records.")
