"""Make a network fast for attacks: frozen weights, folded batch norms, pooling before ReLU, channels-last memory.

No change is taken on trust. Each is compared with the network as it came, on random inputs when it is made and on real
images before long work (`Prepared.verified`), and undone if it changes more than rounding does.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

_TOLERANCE = 1e-3
_TRIED = 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network made fast, and the network as it came to compare it with.

    Attributes:
        module: Frozen, in evaluation mode, on its device.
        layout: That its inputs should have.
        plain: The same network without changes; ``module`` itself where there are none.
    """

    module: nn.Module
    layout: torch.memory_format
    plain: nn.Module

    def verified(self, inputs: torch.Tensor) -> Prepared:
        """This, or the plain network where the two differ on real inputs.

        Args:
            inputs: A few preprocessed images, N×C×H×W.
        """
        if self.module is self.plain or same_outputs(self.plain, self.module, inputs):
            return self
        layout = memory_format(self.plain, inputs[:1])
        return Prepared(self.plain, layout, self.plain)


def prepare(
    module: nn.Module, device: torch.device, example: torch.Tensor | None
) -> tuple[nn.Module, torch.memory_format]:
    """The fast network of `prepare_network` and the layout its inputs should have."""
    prepared = prepare_network(module, device, example)
    return prepared.module, prepared.layout


def prepare_network(module: nn.Module, device: torch.device, example: torch.Tensor | None) -> Prepared:
    """A frozen copy of ``module`` in evaluation mode on ``device``, with what can be made faster made faster.

    A network that cannot be copied is used as it is.

    Args:
        module: Any image classifier; left as it is, if it can be copied.
        device: Where the copy shall run.
        example: A float batch 1×C×H×W of the input's shape, to check that changes keep the outputs; None leaves the
            network unchanged.
    """
    plain = _freeze(copy_network(module) or module).to(device)
    if example is None:
        return Prepared(plain, torch.contiguous_format, plain)
    generator = torch.Generator().manual_seed(0)
    shape = (_TRIED, *example.shape[1:])
    fast = plain
    for change in (_with_pooling_first, _folded):
        changed = change(fast)
        # New ones each time: a graph may have taken for a constant what a layer of the network kept of the last pass.
        inputs = torch.randn(shape, generator=generator, dtype=example.dtype).to(device)
        if changed is not None and same_outputs(plain, changed, inputs):
            fast = _freeze(changed)
    layout = memory_format(fast, example.to(device))
    return Prepared(fast, layout, plain)


def copy_network(module: nn.Module, *, sharing: bool = False) -> nn.Module | None:
    """A deep copy, with the same weights if ``sharing``; None if the network cannot be copied.

    Older normalisations of weights (``torch.nn.utils.weight_norm``) keep what they computed last as an attribute, with
    its graph. torch copies no such tensor; its value will do, as it is computed anew in each pass.
    """
    computed = [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    memo: dict[int, object] = {id(value): value.detach().clone() for value in computed}
    if sharing:
        memo |= {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    try:
        return copy.deepcopy(module, memo)
    except Exception:  # whatever a network holds may refuse: locks, generators, handles of files
        return None


def same_outputs(expected: nn.Module, actual: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether two networks answer the same but for rounding; not if either fails, or answers at random."""
    try:
        with torch.inference_mode():
            first, second = _main(expected(inputs)), _main(actual(inputs))
    except Exception:  # networks may raise anything on inputs that they do not take; the first real batch reports it
        return False
    if not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)) or first.shape != second.shape:
        return False
    largest = float(first[first.isfinite()].abs().max()) if bool(first.isfinite().any()) else math.inf
    return (
        math.isfinite(largest)
        and bool(first.isfinite().all())
        and torch.allclose(second, first, rtol=_TOLERANCE, atol=_TOLERANCE * max(largest, 1e-6))
    )


def memory_format(module: nn.Module, example: torch.Tensor) -> torch.memory_format:
    """The layout that a network works fastest in: channels last, unless it cannot work on that.

    A training step of ResNet-18, CIFAR ResNet-20 and SimpleCNN on 32×32 images takes an eighth to a quarter less time
    so on a CPU. But networks that flatten a feature map with ``view`` raise an error on it; they keep the usual layout.

    Args:
        module: The network; it is moved to the chosen layout.
        example: A few inputs on its device, N×C×H×W float.
    """
    if example.ndim != 4:
        return torch.contiguous_format
    training = module.training
    try:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        module.eval()
        with torch.no_grad():
            module(example.contiguous(memory_format=torch.channels_last))
    except Exception:  # if the network cannot take such images at all, its first step says why
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return torch.contiguous_format
    finally:
        module.train(training)
    return torch.channels_last


def _freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, and no gradients to the weights. A tensor that is computed cannot be frozen, and need not be."""
    module.eval()
    for parameter in module.parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(False)
    return module


def _main(outputs: object) -> object:
    return outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs


def _with_pooling_first(module: nn.Module) -> nn.Module | None:
    """A copy with max pooling before the ReLU that it follows: a quarter of the values are left to clip.

    The largest of values that are not below 0 is the largest of all, not below 0; gradients are the same, too. But a
    network may look at what lies between the two.
    """
    if not any(_swappable(layers) for layers in module.modules()):
        return None
    changed = copy_network(module, sharing=True)
    if changed is not None:
        for layers in changed.modules():
            for at in _swappable(layers):
                assert isinstance(layers, nn.Sequential)
                layers[at], layers[at + 1] = layers[at + 1], layers[at]
    return changed


def _swappable(layers: nn.Module) -> list[int]:
    """Positions of a ReLU with max pooling after it, in a Sequential."""
    if type(layers) is not nn.Sequential:
        return []
    pairs = enumerate(zip(layers, list(layers)[1:], strict=False))
    return [
        at
        for at, (first, second) in pairs
        if type(first) is nn.ReLU and type(second) is nn.MaxPool2d and not second.return_indices
    ]


def _folded(module: nn.Module) -> nn.Module | None:
    """A copy with batch norms folded into the convolutions before them."""
    if not any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        return None
    fold: Callable[[nn.Module], nn.Module] = fuse
    try:
        folded = fold(module)
    except Exception:  # torch.fx raises all sorts of errors on graphs it can't trace: those networks run unfolded
        return None
    return folded if isinstance(folded, fx.GraphModule) else None
