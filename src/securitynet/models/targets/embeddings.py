"""Embeddings of a network: what its second-to-last layer emits, located by tracing or by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from securitynet.errors import ModelError, suggest_names
from securitynet.models.targets.tracing import OpaqueHeadError, Trace, compute_inputs, pool_activations, trace

Extract = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""From a network and N of its inputs to their embeddings, N×D float32."""

TRACED = 3
"""Images in the pass that is traced. With one or two, their number would more often be that of channels as well."""

_INPUT = ":input"
_NAME_LAYERS = "Name the layer whose output is the embedding (the attack's field `layer`)."


def choose_extractor(
    network: nn.Module, inputs: torch.Tensor, *, layer: str | None = None, reference: str = ""
) -> Extract:
    """Choose how to compute the embeddings of a network.

    Args:
        network: The network, in evaluation mode.
        inputs: A few valid inputs, N×C×H×W; only their shape matters.
        layer: Name of the layer whose output is the embedding, as in ``network.named_modules()``; ``NAME:input`` for
            the input of that layer; None to locate the layer by tracing.
        reference: Reference of the target, for messages.

    Raises:
        ModelError: If the layer does not exist, or no layer could be located.
    """
    if layer is not None:
        return _named(network, layer, reference)
    traced = find_classifier(network, inputs, reference=reference)

    def extract(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        try:
            return compute_inputs(module, images, traced)
        except LookupError as error:
            raise ModelError(
                f"{reference or 'The network'} takes another course for some images than for others, so that its "
                "embeddings cannot be located by tracing.",
                hint=_NAME_LAYERS,
            ) from error

    return extract


def find_classifier(network: nn.Module, inputs: torch.Tensor, *, reference: str = "") -> Trace:
    """Locate the final classifier of a network, whose input is the embedding.

    Args:
        network: The network, in evaluation mode.
        inputs: A few valid inputs, N×C×H×W.
        reference: Reference of the target, for messages.

    Raises:
        ModelError: If no classifier could be located.
    """
    few = inputs[:TRACED]
    if len(few) < TRACED:
        few = few.repeat(TRACED, 1, 1, 1)[:TRACED]
    with torch.inference_mode():
        try:
            traced = trace(network, few)
        except OpaqueHeadError:
            raise ModelError(
                f"{reference or 'The network'} ends in attention that torch computes in one piece, so that what its "
                "classifier receives cannot be located.",
                hint=_NAME_LAYERS,
            ) from None
    if traced is None:
        raise ModelError(
            f"{reference or 'The network'} has no layer that computes class scores from features: there are no "
            "embeddings to take.",
            hint=_NAME_LAYERS,
        )
    return traced


def _named(network: nn.Module, layer: str, reference: str) -> Extract:
    name = layer.removesuffix(_INPUT)
    before = layer.endswith(_INPUT)
    if isinstance(network, fx.GraphModule) and not _called(network, name):
        # Batch norms were folded, which left the layers in one row: a block is the last call that was inside it.
        node = _of_block(network, name, before)
        if node is not None:
            return lambda module, images: _row(_graph_value(module, node, images), len(images), layer)
    names = [known for known, _ in network.named_modules() if known]
    if name not in names:
        close = suggest_names(name, names)
        raise ModelError(
            f"{reference or 'The network'} has no layer {name!r}.",
            hint=f"Did you mean {close}?" if close else f"Its last layers: {', '.join(names[-5:])}.",
        )

    def extract(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def watch(_layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            value = _first(arguments if before else output)
            if value is not None:
                seen.append(value.clone())

        hook = module.get_submodule(name).register_forward_hook(watch)
        try:
            module(images)
        finally:
            hook.remove()
        if not seen:
            raise ModelError(f"{reference or 'The network'} does not use its layer {name!r}.", hint=_NAME_LAYERS)
        return _row(seen[-1], len(images), layer)

    return extract


def _row(value: torch.Tensor, count: int, layer: str) -> torch.Tensor:
    """Activations as one row per image: feature maps and tokens are averaged over their positions."""
    try:
        if value.ndim == 4:
            # Channels come first in convolutional networks, last in some transformers; maps are square in both.
            last = value.shape[1] == value.shape[2] != value.shape[3]
            return pool_activations(value, count, -1 if last else 1)
        return pool_activations(value, count, -1)
    except (LookupError, IndexError):
        raise ModelError(
            f"The layer {layer!r} emits values of shape {tuple(value.shape)} for {count} images: there is not one row "
            "for each.",
        ) from None


def _first(value: Any) -> torch.Tensor | None:
    if isinstance(value, (tuple, list)):
        return next((part for part in value if isinstance(part, torch.Tensor)), None)
    return value if isinstance(value, torch.Tensor) else None


def _called(network: fx.GraphModule, name: str) -> bool:
    return any(node.op == "call_module" and node.target == name for node in network.graph.nodes)


def _of_block(network: fx.GraphModule, name: str, before: bool) -> int | None:
    """Position of the node that holds the output, or the input, of a block of the untraced network; None if unknown."""
    nodes = list(network.graph.nodes)
    inside = [number for number, node in enumerate(nodes) if name in _blocks(node)]
    if not inside:
        return None
    if not before:
        return inside[-1]
    sources = [source for source in nodes[inside[0]].all_input_nodes if name not in _blocks(source)]
    return nodes.index(sources[0]) if sources else None


def _blocks(node: fx.Node) -> list[str]:
    """Names of the blocks in which a node was traced, and of its own layer."""
    stack = node.meta.get("nn_module_stack") or {}
    modules = [str(entry[0]) for entry in stack.values()]
    return [*modules, *([str(node.target)] if node.op == "call_module" else [])]


def _graph_value(module: nn.Module, position: int, images: torch.Tensor) -> torch.Tensor:
    """The value of one node of a traced network."""
    assert isinstance(module, fx.GraphModule)
    target = list(module.graph.nodes)[position]

    class Until(fx.Interpreter):
        taken: torch.Tensor | None = None

        def run_node(self, node: fx.Node) -> Any:
            result = super().run_node(node)
            if node is target:
                self.taken = _first(result)
                self.taken = None if self.taken is None else self.taken.clone()
            return result

    runner = Until(module)
    runner.run(images)
    if runner.taken is None:
        raise ModelError("The chosen layer emits no tensor.", hint=_NAME_LAYERS)
    return runner.taken
