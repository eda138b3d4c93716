"""One forward pass for many networks of the same layers: batched matrix products if possible, else ``vmap``."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from typing_extensions import override

Inputs = tuple[torch.Tensor, ...]
"""What a network takes, each with one row per record."""

Loss = Callable[[torch.Tensor], torch.Tensor]
"""From logits of M networks (M×B×K) to one number, the sum of what each network minimises."""

_PROBED = 3


def flatten_parameters(networks: Sequence[nn.Module]) -> torch.Tensor:
    """Flatten the parameters of M networks into rows, M×P."""
    rows = [torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) for network in networks]
    return torch.stack(rows)


def unflatten_parameters(networks: Sequence[nn.Module], weights: torch.Tensor) -> None:
    """Write the rows of `flatten_parameters` back into the networks, in place."""
    with torch.no_grad():
        for network, row in zip(networks, weights.cpu(), strict=True):
            parameters = list(network.parameters())
            for parameter, piece in zip(parameters, torch.split(row, [p.numel() for p in parameters]), strict=True):
                parameter.copy_(piece.view(parameter.shape))


class Stack(ABC):
    """Networks of the same layers that run together.

    Args:
        weights: Weights of M networks, M×P, on the device where they run; in-place changes take effect.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights.detach()

    @abstractmethod
    def logits(self, count: int, rows: Inputs) -> torch.Tensor:
        """Outputs of the first ``count`` networks for their own rows (M×B×…), M×B×K."""

    @abstractmethod
    def gradient(self, count: int, rows: Inputs, loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss of the first ``count`` networks, detached, and its gradient.

        Args:
            count: Number of networks.
            rows: Inputs, M×B×….
            loss: Function of the logits, ``count``×B×K, that returns a scalar.

        Returns:
            The loss, and the gradient, ``count``×P, which the next call overwrites.
        """


def stack_networks(networks: Sequence[nn.Module], weights: torch.Tensor, probe: Inputs) -> Stack:
    """Choose how to run all networks together.

    If linear layers hold all parameters and everything else works along the last dimension, a copy of the network with
    batched linear layers computes the outputs of all networks at a fraction of the cost of ``vmap``. Whether it does is
    verified on a few rows.

    Args:
        networks: M networks of the same layers.
        weights: Weights of all networks, M×P, on the device where they will run; see `Stack`.
        probe: Rows for each network, M×B×… with B at least 1.
    """
    products = _Products.of(networks[0], weights)
    if products is None or not _agrees(products, networks, probe):
        return _Mapped(networks[0], weights)
    return products


class _StackedLinear(nn.Module):
    """Linear layers of M networks; weights, and the destinations of their gradients, are set before each pass.

    Both are parts of one tensor of all weights (or gradients). Left to autograd, gradients would be computed layer by
    layer, transposed and concatenated, which took a quarter of the time of a step.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    weight_gradient: torch.Tensor
    bias_gradient: torch.Tensor
    anchor: torch.Tensor
    filled: bool

    def __init__(self) -> None:
        super().__init__()
        self.bias = None

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.ndim != 3:
            raise ValueError("not one row for each record of each network")
        result: torch.Tensor = _Product.apply(rows, self.anchor, self)  # type: ignore[no-untyped-call]
        return result

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs of the layers, M×B×O for M×B×I."""
        if self.bias is None:
            return torch.bmm(rows, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT)

    def collect(self, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        """Write the gradients of the weights, or add to them if the layer was used before in this pass."""
        if self.filled:
            self.weight_gradient.baddbmm_(gradient.mT, rows)
            if self.bias is not None:
                self.bias_gradient.add_(gradient.sum(dim=1))
            return
        torch.bmm(gradient.mT, rows, out=self.weight_gradient)
        if self.bias is not None:
            torch.sum(gradient, dim=1, out=self.bias_gradient)
        self.filled = True


class _Product(torch.autograd.Function):
    """The product of linear layers, whose backward pass writes the gradients of the weights to their destinations."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, anchor: torch.Tensor, layer: _StackedLinear) -> torch.Tensor:
        """The anchor requires a gradient, so that autograd calls the backward pass even if the rows need none."""
        ctx.save_for_backward(rows)
        ctx.layer = layer
        return layer.product(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        """Gradient of the rows."""
        (rows,) = ctx.saved_tensors
        ctx.layer.collect(rows, gradients[0])
        return torch.bmm(gradients[0], ctx.layer.weight) if ctx.needs_input_grad[0] else None, None, None


class _Products(Stack):
    """A copy of the network with stacked layers."""

    def __init__(
        self,
        root: nn.Module,
        slots: Sequence[tuple[_StackedLinear, str]],
        shapes: Sequence[torch.Size],
        weights: torch.Tensor,
    ) -> None:
        super().__init__(weights)
        self._root = root
        self._slots = slots
        self._shapes = shapes
        self._layers = list(dict.fromkeys(layer for layer, _ in slots))
        self._gradients = torch.zeros_like(self.weights)
        self._anchor = torch.zeros((), device=weights.device, requires_grad=True)
        self._count: int | None = None

    @classmethod
    def of(cls, network: nn.Module, weights: torch.Tensor) -> _Products | None:
        """Build the copy for networks of that form; None if other layers hold parameters."""
        places: dict[int, tuple[_StackedLinear, str]] = {}
        root = copy.deepcopy(network)
        shapes = [parameter.shape for parameter in root.parameters()]
        order = [id(parameter) for parameter in root.parameters()]
        for layer in root.modules():
            if any(layer._forward_hooks) or any(layer._forward_pre_hooks):
                return None
        root = _replaced(root, places)
        if set(places) != set(order) or any(True for _ in root.parameters()):
            return None
        return cls(root, [places[key] for key in order], shapes, weights)

    @override
    def logits(self, count: int, rows: Inputs) -> torch.Tensor:
        if count != self._count:
            self._put_in(count)
        for layer in self._layers:
            layer.filled = False
        result: torch.Tensor = self._root(*rows)
        return result

    @override
    def gradient(self, count: int, rows: Inputs, loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
        value = loss(self.logits(count, rows))
        value.backward()  # type: ignore[no-untyped-call]
        for layer in self._layers:
            if not layer.filled:  # if the loss does not depend on the layer
                layer.weight_gradient.zero_()
                if layer.bias is not None:
                    layer.bias_gradient.zero_()
        return value.detach(), self._gradients[:count]

    def _put_in(self, count: int) -> None:
        lengths = [shape.numel() for shape in self._shapes]
        for suffix, tensor in (("", self.weights), ("_gradient", self._gradients)):
            pieces = torch.split(tensor[:count], lengths, dim=1)
            for (layer, name), piece, shape in zip(self._slots, pieces, self._shapes, strict=True):
                layer.__dict__[name + suffix] = piece.view(count, *shape)
                layer.__dict__["anchor"] = self._anchor
        self._count = count


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


def _agrees(stack: Stack, networks: Sequence[nn.Module], probe: Inputs) -> bool:
    """Whether the networks one by one give the same outputs for a few rows."""
    with torch.no_grad():
        try:
            logits = stack.logits(len(networks), probe)
            for number in range(min(len(networks), _PROBED)):
                rows = tuple(values[number].cpu() for values in probe)
                expected = networks[number](*rows)
                if not torch.allclose(logits[number].cpu(), expected, rtol=1e-3, atol=1e-4, equal_nan=True):
                    return False
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return logits.shape[:2] == probe[0].shape[:2]


class _Mapped(Stack):
    """The network under ``vmap``."""

    def __init__(self, template: nn.Module, weights: torch.Tensor) -> None:
        super().__init__(weights)
        names = [name for name, _ in template.named_parameters()]
        shapes = [parameter.shape for parameter in template.parameters()]
        self._lengths = [shape.numel() for shape in shapes]

        def compute_logits(pieces: tuple[torch.Tensor, ...], rows: Inputs) -> torch.Tensor:
            values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
            result: torch.Tensor = functional_call(template, values, rows)
            return result

        self._compute_all = vmap(compute_logits)

    @override
    def logits(self, count: int, rows: Inputs) -> torch.Tensor:
        return self._logits(self.weights[:count], rows)

    @override
    def gradient(self, count: int, rows: Inputs, loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = self.weights[:count].detach().requires_grad_()
        value = loss(self._logits(leaf, rows))
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def _logits(self, weights: torch.Tensor, rows: Inputs) -> torch.Tensor:
        result: torch.Tensor = self._compute_all(torch.split(weights, self._lengths, dim=1), rows)
        return result
