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

_BETAS = 0.9, 0.999
_EPSILON = 1e-8


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
    # One row of weights per network: Adam is a handful of operations on the whole, however many networks there are.
    start = [torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) for network in networks]
    weights_of_all = torch.stack(start).to(place)
    adam = _Adam(weights_of_all, training)

    def answers(pieces: tuple[torch.Tensor, ...], rows: Inputs) -> torch.Tensor:
        values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        result: torch.Tensor = functional_call(template, values, rows)
        return result

    batched = vmap(answers)
    flat_data = tuple(rows.flatten(0, 1) for rows in data)
    flat_truth, flat_importance = truth.flatten(), importance.flatten()
    with torch.inference_mode(False), torch.enable_grad(), deterministic_kernels(place):
        for epoch in range(training.epochs):
            orders = [
                torch.randperm(size, generator=generator(seed, "attack order", epoch))
                for size, seed in zip(sizes, seeds, strict=True)
            ]
            total = torch.zeros((), device=place)
            for positions, counts in _batches(orders, training.batch_size, truth.shape[1]):
                width = positions.shape[1]
                chosen = positions.flatten().to(place)
                shares = flat_importance[chosen] / counts.clamp_min(1).repeat_interleave(width).to(place)
                full = bool((counts == width).all())
                if not full:
                    shares *= (torch.arange(width) < counts[:, None]).flatten().to(place)
                leaf = weights_of_all.detach().requires_grad_()
                rows = tuple(values[chosen].view(*positions.shape, *values.shape[1:]) for values in flat_data)
                logits = batched(torch.split(leaf, lengths, dim=1), rows)
                losses = functional.cross_entropy(logits.flatten(0, 1), flat_truth[chosen], reduction="none")
                loss = losses @ shares
                (gradient,) = torch.autograd.grad(loss, leaf)
                adam.step(gradient, None if full else (counts > 0).to(place))
                total += loss.detach()
            if not bool(torch.isfinite(total)):
                raise ModelError(
                    f"The training of the attack networks diverged at epoch {epoch + 1}: a loss is not finite.",
                    hint="Lower the learning rate.",
                )
    with torch.no_grad():
        for network, row in zip(networks, weights_of_all.cpu(), strict=True):
            for parameter, piece in zip(network.parameters(), torch.split(row, lengths), strict=True):
                parameter.copy_(piece.view(parameter.shape))
            network.eval()


class _Adam:
    """Adam (Kingma and Ba, 2015) on rows of weights, of which some may rest; as torch's with its default betas.

    Args:
        weights: M×P, changed in place.
        training: Its learning rate and weight decay.
    """

    def __init__(self, weights: torch.Tensor, training: EnsembleTraining) -> None:
        self._weights = weights
        self._training = training
        self._mean = torch.zeros_like(weights)
        self._square = torch.zeros_like(weights)
        self._steps = torch.zeros(len(weights), 1, device=weights.device, dtype=torch.float64)

    def step(self, gradient: torch.Tensor, active: torch.Tensor | None) -> None:
        """One step of all rows, or of those that are ``active`` (M booleans)."""
        if active is None:
            self._move(*self._parts(), gradient)
            return
        weights, mean, square, steps = (part[active] for part in self._parts())
        self._move(weights, mean, square, steps, gradient[active])
        for part, new in zip(self._parts(), (weights, mean, square, steps), strict=True):
            part[active] = new

    def _parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._weights, self._mean, self._square, self._steps

    def _move(
        self,
        weights: torch.Tensor,
        mean: torch.Tensor,
        square: torch.Tensor,
        steps: torch.Tensor,
        gradient: torch.Tensor,
    ) -> None:
        first, second = _BETAS
        if self._training.weight_decay:
            gradient = gradient.add(weights, alpha=self._training.weight_decay)
        steps += 1
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = square.sqrt().div_((1 - second**steps).sqrt().to(square.dtype)).add_(_EPSILON)
        rate = (self._training.learning_rate / (1 - first**steps)).to(mean.dtype)
        weights.sub_(mean.mul(rate).div_(spread))


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
    """Rows of the flattened data (M×B) and how many of them are there (M), until the longest order is through.

    Where a network has fewer than B records left, its other rows point to a record that must not count.
    """
    lengths = torch.tensor([len(order) for order in orders])
    offsets = torch.arange(len(orders))[:, None] * stride
    padded = nn.utils.rnn.pad_sequence(list(orders), batch_first=True) + offsets
    for start in range(0, padded.shape[1], size):
        positions = padded[:, start : start + size]
        yield positions, (lengths - start).clamp(0, positions.shape[1])


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
