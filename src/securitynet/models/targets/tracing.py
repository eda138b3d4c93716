"""Locate the input of a network's final classifier, whatever its architecture, by tracing one forward pass.

`trace` records every torch function that is called on a tensor that depends on the images. Starting from the network's
output, it goes back to the nearest operations that mix features with weights: linear layers, convolutions, products
with a weight matrix. They are the classifier, and their input is the embedding. The method does not rely on layer names
or on the order of definition, so it handles heads of any form: convolutions, several heads whose outputs are averaged,
and weights that are used without a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from securitynet.models.targets._operands import covers_input, identify_storage, iterate_tensors, list_operands

Combination = Literal["one", "mean", "joined"]
"""How the inputs of several heads become one embedding."""

# Dimension of the data that is summed over; None if it is flattened.
_PRODUCTS: Mapping[str, int | None] = {
    "linear": -1,
    "conv1d": 1,
    "conv2d": 1,
    "conv3d": 1,
    "matmul": -1,
    "__matmul__": -1,
    "__rmatmul__": -2,
    "mm": -1,
    "bmm": -1,
    "addmm": -1,
    "baddbmm": -1,
    "cdist": -1,
    "einsum": None,
    "tensordot": None,
    "bilinear": None,
}
Call: TypeAlias = Callable[..., Any]
_OPAQUE = ("multi_head_attention_forward", "_transformer_encoder_layer_fwd", "_native_multi_head_attention")


@dataclass(eq=False)
class _Node:
    """One call on traced data, and the calls that produced its data; ``head`` is set if it mixes data with weights."""

    made_from: tuple[_Node, ...] = ()
    head: ClassifierHead | None = None
    opaque: bool = False


@dataclass(frozen=True, eq=False)
class ClassifierHead:
    """One call that mixes features with weights.

    Attributes:
        ordinal: Its number among all calls of such functions in a forward pass.
        operand: Position of the data among its arguments.
        features: Dimension of the data that holds features, negative or positive; None to flatten all but the first.
        shape: Shape of the data when it was traced.
        weights: Names of the parameters that it used.
        source: The node of the data.
        whole: Whether a convolution covers the whole of its input, which makes each position a feature.
    """

    ordinal: int
    operand: int
    features: int | None
    shape: tuple[int, ...]
    weights: tuple[str, ...]
    source: _Node
    whole: bool = False


@dataclass(frozen=True)
class Trace:
    """The final classifier of a network: one head, or several.

    Attributes:
        heads: The heads, in the order of their calls.
        combination: How the inputs of several heads are combined.
    """

    heads: tuple[ClassifierHead, ...]
    combination: Combination

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the classifier's parameters."""
        return tuple(name for head in self.heads for name in head.weights)


class _Products(TorchFunctionMode):
    """Counts calls of functions that may mix features with weights. Calls inside such a function are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in _PRODUCTS:
            return self.other(name, func, args, kwargs)
        ordinal, self.count = self.count, self.count + 1
        return self.product(ordinal, name, func, args, kwargs)

    def other(self, name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def product(self, ordinal: int, name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)


class _Recorder(_Products):
    """Records which call produced each tensor that depends on the images.

    It keeps all these tensors alive, so batches must be small. Tensors that were computed during the pass without
    weights are known too.
    """

    def __init__(self, images: torch.Tensor, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self._nodes: dict[int, tuple[torch.Tensor, _Node]] = {}
        self._sharing: dict[int, list[int]] = {}
        self._unlearned: dict[int, torch.Tensor] = {}
        self._put(images, _Node())

    def node(self, value: torch.Tensor) -> _Node | None:
        """The node that produced a tensor; None if the tensor does not depend on the images."""
        entry = self._nodes.get(id(value))
        return None if entry is None else entry[1]

    def other(self, name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = self._made_from(args, kwargs)
        result = func(*args, **kwargs)
        self._record(name, args, result, before, None, name in _OPAQUE)
        return result

    def product(self, ordinal: int, name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = self._made_from(args, kwargs)
        result = func(*args, **kwargs)
        operands = list_operands(args, kwargs)
        data = [number for number, value in enumerate(operands) if self.node(value) is not None]
        # A call with two inputs that depend on the images, such as attention, mixes no features with weights. Nor does
        # a product with a matrix that was computed from positions, as pooling may use.
        learned = any(id(value) not in self._unlearned for value in operands if self.node(value) is None)
        head = self._head(ordinal, name, operands, data[0], result) if len(data) == 1 and learned else None
        self._record(name, args, result, before, head, False)
        return result

    def _head(
        self,
        ordinal: int,
        name: str,
        operands: Sequence[torch.Tensor],
        position: int,
        result: Any,
    ) -> ClassifierHead | None:
        value = operands[position]
        source = self.node(value)
        if source is None or not isinstance(result, torch.Tensor):
            return None
        features = _PRODUCTS[name]
        if name in ("matmul", "__matmul__", "mm", "bmm") and position == 1:
            features = -2
        if name == "__rmatmul__":
            features = -1 if position == 1 else -2
        elif name in ("addmm", "baddbmm"):
            features = {0: None, 1: -1, 2: -2}[position]
        whole = name.startswith("conv") and covers_input(value, operands, result)
        weights = tuple(self._names[id(tensor)] for tensor in operands if id(tensor) in self._names)
        return ClassifierHead(ordinal, position, features, tuple(value.shape), weights, source, whole)

    def _made_from(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Node, ...]:
        nodes = (self.node(value) for value in iterate_tensors((args, kwargs)))
        return tuple({id(node): node for node in nodes if node is not None}.values())

    def _record(
        self,
        name: str,
        args: tuple[Any, ...],
        result: Any,
        before: tuple[_Node, ...],
        head: ClassifierHead | None,
        opaque: bool,
    ) -> None:
        if not before:
            sources = [value for value in iterate_tensors(args) if value.is_floating_point()]
            if all(id(value) in self._unlearned for value in sources):
                self._unlearned.update((id(value), value) for value in iterate_tensors(result))
            return
        changed = list(iterate_tensors(result))
        if name == "__setitem__":
            changed.append(args[0])
        node = _Node(before, head, opaque)
        for value in changed:
            self._put(value, node)
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i"):
            self._spread(changed, node)

    def _put(self, value: torch.Tensor, node: _Node) -> None:
        self._nodes[id(value)] = (value, node)
        self._sharing.setdefault(identify_storage(value), []).append(id(value))

    def _spread(self, changed: Iterable[torch.Tensor], node: _Node) -> None:
        """Propagate an in-place change to all views of a tensor."""
        own = {id(value) for value in changed}
        for storage in {identify_storage(value) for value in changed}:
            for other in self._sharing.get(storage, []):
                if other not in own:
                    value, earlier = self._nodes[other]
                    self._nodes[other] = (value, _Node((earlier, node)))


@dataclass(eq=False)
class _Tap(_Products):
    """Captures the inputs of chosen calls, before anything can change them in place."""

    wanted: Mapping[int, ClassifierHead]
    taken: dict[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def product(self, ordinal: int, name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if ordinal in self.wanted:
            self.taken[ordinal] = list_operands(args, kwargs)[self.wanted[ordinal].operand].clone()
        return func(*args, **kwargs)


class OpaqueHeadError(Exception):
    """The classifier lies inside a function that tracing cannot look into."""


def trace(network: nn.Module, images: torch.Tensor) -> Trace | None:
    """Locate the final classifier of a network.

    Args:
        network: The network, in evaluation mode.
        images: A few valid inputs, N×C×H×W; everything computed from them stays in memory during the trace.

    Returns:
        None if there is no classifier: the output does not come from mixing features with weights, or it is a sum of
        terms added by successive layers, as in an encoder without a head.

    Raises:
        OpaqueHeadError: If the network ends in an attention that torch computes as one operation.
    """
    names = {id(value): name for name, value in (*network.named_parameters(), *network.named_buffers())}
    recorder = _Recorder(images, names)
    with recorder:
        output = network(images)
    if isinstance(output, (tuple, list)):  # auxiliary classifiers come after the main one
        output = output[0]
    last = recorder.node(output)
    nearest, opaque = _nearest(last) if last is not None else ([], False)
    if opaque:
        raise OpaqueHeadError
    different = {id(head.source): head for head in sorted(nearest, key=lambda head: -head.ordinal)}
    heads = sorted(different.values(), key=lambda head: head.ordinal)
    # Beside a head with one vector per image, one with many (one per token) only refines its output.
    vectors = [head for head in heads if len(head.shape) == 2]
    heads = vectors or heads
    if not heads or _chained(heads):
        return None
    return Trace(tuple(heads), _combination(heads))


def compute_inputs(network: nn.Module, images: torch.Tensor, traced: Trace) -> torch.Tensor:
    """Compute the inputs of the classifier for images: the embeddings, N×D.

    Features at many positions (of a feature map, of tokens) are averaged over them. Inputs of several heads are
    averaged if the heads read one feature space (the class and the distillation token of a transformer), and
    concatenated if they do not (branches of different widths, networks of an ensemble).

    Args:
        network: The network that was traced.
        images: Inputs, N×C×H×W.
        traced: Its trace.

    Raises:
        LookupError: If the forward pass differs from the one that was traced.
    """
    tap = _Tap({head.ordinal: head for head in traced.heads})
    with tap:
        network(images)
    parts = []
    for head in traced.heads:
        value = tap.taken.get(head.ordinal)
        if value is None or value.ndim != len(head.shape):
            raise LookupError
        parts.append(pool_activations(value, len(images), head.features, whole=head.whole))
    if traced.combination == "mean":
        return torch.stack(parts).mean(dim=0)
    return torch.cat(parts, dim=1)


def pool_activations(value: torch.Tensor, count: int, features: int | None, *, whole: bool = False) -> torch.Tensor:
    """Reduce activations to one row per image by averaging over positions.

    Args:
        value: The activations; one dimension is of images (or of images times positions, images first).
        count: Number of images, N.
        features: Dimension that holds features; None to flatten all but the first.
        whole: Whether each position is a feature of its own.

    Returns:
        N×D float32.

    Raises:
        LookupError: If no dimension can be that of the images.
    """
    value = value.float()
    if features is not None and not whole:
        value = value.movedim(features, -1)
        images = next((axis for axis in range(value.ndim - 1) if value.shape[axis] == count), None)
        value = value.movedim(images, 0) if images is not None else value
    if value.shape[0] % max(count, 1) != 0:
        raise LookupError
    if features is None or whole:
        return value.reshape(count, -1)
    return value.reshape(count, -1, value.shape[-1]).mean(dim=1)


def _combination(heads: Sequence[ClassifierHead]) -> Combination:
    if len(heads) == 1:
        return "one"
    widths = {head.shape[head.features] if head.features is not None else -1 for head in heads}
    trunks = [{id(node) for node in _nearest_nodes(head.source)} for head in heads]
    return "mean" if len(widths) == 1 and set.intersection(*trunks) else "joined"


def _chained(heads: Sequence[ClassifierHead]) -> bool:
    """Whether one of the heads depends on the output of another."""
    ordinals = {head.ordinal for head in heads}
    seen: set[int] = set()
    waiting = [head.source for head in heads]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.head is not None and node.head.ordinal in ordinals:
            return True
        waiting += node.made_from
    return False


def _nearest(start: _Node) -> tuple[list[ClassifierHead], bool]:
    """The heads that can be reached from a node without passing another, and whether one of them is opaque."""
    nodes = _nearest_nodes(start)
    return [node.head for node in nodes if node.head is not None], any(node.opaque for node in nodes)


def _nearest_nodes(start: _Node) -> list[_Node]:
    nodes: list[_Node] = []
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.head is not None or node.opaque:
            nodes.append(node)
        else:
            waiting += node.made_from
    return nodes
