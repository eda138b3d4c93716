"""One forward pass for many networks of the same layers: batched matrix products where that suffices, else ``vmap``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

Inputs = tuple[torch.Tensor, ...]
"""What a network takes, each with one row per record."""

Forward = Callable[[torch.Tensor, Inputs], torch.Tensor]
"""From weights of M networks (M×P) and rows for each (M×B×…) to their answers (M×B×K)."""

_PROBED = 3


def flattened(networks: Sequence[nn.Module]) -> torch.Tensor:
    """Parameters of M networks as rows, M×P."""
    rows = [torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) for network in networks]
    return torch.stack(rows)


def put_back(networks: Sequence[nn.Module], weights: torch.Tensor) -> None:
    """The inverse of `flattened`, in place."""
    with torch.no_grad():
        for network, row in zip(networks, weights.cpu(), strict=True):
            parameters = list(network.parameters())
            for parameter, piece in zip(parameters, torch.split(row, [p.numel() for p in parameters]), strict=True):
                parameter.copy_(piece.view(parameter.shape))


def stacked_forward(networks: Sequence[nn.Module], weights: torch.Tensor, probe: Inputs) -> Forward:
    """How to run all networks at once.

    Where linear layers hold all parameters and everything else works along the last dimension, a copy of the network
    whose linear layers do batched products does what all of them do, at a fraction of what ``vmap`` takes. Whether it
    does is tried on a few rows.

    Args:
        networks: M of the same layers.
        weights: Of all, M×P, on the device where they will run.
        probe: Rows for each, M×B×… with B at least 1.
    """
    batched = _batched(networks[0])
    if batched is None or not _agrees(batched, networks, weights, probe):
        return _mapped(networks[0])
    return batched


class _StackedLinear(nn.Module):
    """Linear layers of M networks; the weights are put in before each pass, as parts of one tensor."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.bias = None

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.ndim != 3:
            raise ValueError("not one row for each record of each network")
        if self.bias is None:
            return torch.bmm(rows, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT)


def _batched(network: nn.Module) -> Forward | None:
    """The pass of a copy with stacked layers; None if other layers hold parameters."""
    places: dict[int, tuple[_StackedLinear, str]] = {}
    root = copy.deepcopy(network)
    shapes = [parameter.shape for parameter in root.parameters()]
    lengths = [shape.numel() for shape in shapes]
    order = [id(parameter) for parameter in root.parameters()]
    for layer in root.modules():
        if any(layer._forward_hooks) or any(layer._forward_pre_hooks):
            return None
    root = _replaced(root, places)
    if set(places) != set(order) or any(True for _ in root.parameters()):
        return None
    slots = [places[key] for key in order]

    def forward(weights: torch.Tensor, rows: Inputs) -> torch.Tensor:
        for (layer, name), piece, shape in zip(slots, torch.split(weights, lengths, dim=1), shapes, strict=True):
            layer.__dict__[name] = piece.view(len(weights), *shape)
        result: torch.Tensor = root(*rows)
        return result

    return forward


def _replaced(module: nn.Module, places: dict[int, tuple[_StackedLinear, str]]) -> nn.Module:
    if type(module) is nn.Linear:
        stacked = _StackedLinear()
        places[id(module.weight)] = stacked, "weight"
        if module.bias is not None:
            places[id(module.bias)] = stacked, "bias"
        return stacked
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, places))
    return module


def _agrees(forward: Forward, networks: Sequence[nn.Module], weights: torch.Tensor, probe: Inputs) -> bool:
    """Whether the networks one by one say the same of a few rows."""
    with torch.no_grad():
        try:
            found = forward(weights, probe)
            for number in range(min(len(networks), _PROBED)):
                rows = tuple(values[number].cpu() for values in probe)
                expected = networks[number](*rows)
                if not torch.allclose(found[number].cpu(), expected, rtol=1e-3, atol=1e-4, equal_nan=True):
                    return False
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return found.shape[:2] == probe[0].shape[:2]


def _mapped(template: nn.Module) -> Forward:
    names = [name for name, _ in template.named_parameters()]
    shapes = [parameter.shape for parameter in template.parameters()]
    lengths = [shape.numel() for shape in shapes]

    def answers(pieces: tuple[torch.Tensor, ...], rows: Inputs) -> torch.Tensor:
        values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        result: torch.Tensor = functional_call(template, values, rows)
        return result

    batched = vmap(answers)

    def forward(weights: torch.Tensor, rows: Inputs) -> torch.Tensor:
        result: torch.Tensor = batched(torch.split(weights, lengths, dim=1), rows)
        return result

    return forward
