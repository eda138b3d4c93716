"""Which network weights belong to, by the names and shapes of their tensors."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from securitynet.errors import SecurityNetError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.layer_order import find_shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.tensor_names import separate_normalizer
from securitynet.models.sources.weights import StateDict
from securitynet.scan.candidates import Evidence

_SIZES = (32, 28, 64, 224, 96, 48, 16, 8)
_LIBRARY_SIZES = (224, 256, 384, 160, 192, 32, 64, 96, 128, 288, 336, 448, 512)
_TORCHVISION = (
    "alexnet", "vgg11", "vgg16", "vgg19", "vgg11_bn", "vgg16_bn", "vgg19_bn", "resnet18", "resnet34", "resnet50",
    "resnet101", "resnet152", "densenet121", "densenet161", "densenet169", "googlenet", "inception_v3",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "wide_resnet50_2", "resnext50_32x4d", "mnasnet0_5",
    "mnasnet1_0", "vit_b_16", "swin_t", "convnext_tiny",
)  # fmt: skip
"""Networks of torchvision that people train on data of their own."""

_LEAST_OF_TORCHVISION = 340_000
"""Fewer parameters than any of these has: they need not be built to be compared with a small network."""

EXACT, IN_ORDER = 0.97, 0.75
"""Confidence that weights belong to a network whose tensors have the same names and shapes, or the same shapes."""

_BODY = 0.85
"""Confidence in an architecture whose body the weights have, with another head: there is no reference that loads it."""

_OF_HEADS = 24
"""Tensors of the heads that people put on a body, and of the one that was there."""

_HEADS = re.compile(r"(^|\.)(fc|classifier|head|heads|linear|output|out|last_linear|logits|dense)\d*(\.|$)")


@dataclass(frozen=True)
class Network:
    """A network that weights fit.

    Attributes:
        reference: Its reference.
        shape: The shape that they fit.
        sized: Whether the weights depend on the image size, so that it is known.
        exact: Whether the names agree too.
    """

    reference: str
    shape: Shape
    sized: bool
    exact: bool


def describe_network(state: StateDict, named: Iterable[str] = ()) -> list[Evidence]:
    """What the tensors say about the network: its reference, class count, channels, image size and kinds of layer.

    Args:
        state: Tensors by name.
        named: References of libraries' networks that the repository's code makes; they are tried, too.
    """
    evidence = [*_describe_head(state), *_describe_layers(state)]
    network = recognise_network(state)
    if network is None or not network.exact:
        shapes = _without_values(state)
        parts = (reference.partition(":") for reference in dict.fromkeys(named))
        fitting = (_fit_by_name(scheme, name, shapes) for scheme, _, name in parts)
        network = next((match for match in fitting if match is not None), network)
    if network is None:
        return evidence + _describe_body(state)
    name = network.reference.partition(":")[2]
    confidence = EXACT if network.exact else IN_ORDER
    reason = f"the tensors have the {'names and shapes' if network.exact else 'shapes'} of {network.reference}"
    evidence += [
        Evidence(code="reference", value=network.reference, reason=reason, confidence=confidence),
        Evidence(code="architecture", value=name, reason=reason, confidence=confidence),
        Evidence(code="classes", value=network.shape.num_classes, reason=reason, confidence=confidence),
        Evidence(code="image_channels", value=network.shape.channels, reason=reason, confidence=confidence),
        Evidence(code="head", value="classifier", reason=reason, confidence=confidence),
        Evidence(code="task_type", value="classification", reason=reason, confidence=confidence),
    ]
    if network.sized:
        evidence += [
            Evidence(code=code, value=network.shape.image_size, reason=reason, confidence=confidence)
            for code in ("image_height", "image_width")
        ]
    return evidence


def recognise_network(state: StateDict) -> Network | None:
    """The network whose tensors have these names and shapes, or at least these shapes in this order.

    Args:
        state: Tensors by name.
    """
    signature = tuple((name, tuple(tensor.shape)) for name, tensor in state.items())
    return _find_cached(signature)


def _without_values(state: StateDict) -> StateDict:
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in state.items()}


@functools.lru_cache(maxsize=512)
def _find_cached(signature: tuple[tuple[str, tuple[int, ...]], ...]) -> Network | None:
    """As `recognise_network`; most files of a population have the same structure."""
    state = {name: torch.empty(shape, device="meta") for name, shape in signature}
    references = [("arch", name) for name in ARCHITECTURES.names()]
    if sum(tensor.numel() for tensor in state.values()) >= _LEAST_OF_TORCHVISION:
        references += [("torchvision", name) for name in _TORCHVISION]
    kinds = _count_kinds(state)
    for scheme, name in references:
        network = _fit_by_name(scheme, name, state) if _kinds_of(scheme, name) <= kinds else None
        if network is not None:
            return network
    kinds = _count_kinds(separate_normalizer(state)[0])
    for name in ARCHITECTURES.names():
        if _kinds_of("arch", name) != kinds:
            continue
        source = open_source(ModelReference(scheme="arch", name=name))
        for size in _SIZES[:2]:
            try:
                match = find_shape(source, state, Shape(10, 3, size))
            except (SecurityNetError, RuntimeError):
                continue
            if match is not None:
                return Network(f"arch:{name}", match[0], source.sized, exact=False)
    return None


def _count_kinds(state: StateDict) -> Counter[tuple[str, int]]:
    """How many tensors of each kind there are: last part of the name, and number of dimensions.

    Comparing these counts is cheap, and rules out almost every network that the weights do not belong to.
    """
    names = ((name.rpartition(".")[2], tensor.ndim) for name, tensor in state.items())
    return Counter(kind for kind in names if kind[0] != "num_batches_tracked")


@functools.cache
def _kinds_of(scheme: str, name: str) -> Counter[tuple[str, int]]:
    """As `_count_kinds`, for a network as its library builds it; none fits if it cannot be built."""
    try:
        source = open_source(ModelReference(scheme=scheme, name=name))
        shape = Shape(source.num_classes or 10, source.channels or 3, _SIZES[0] if scheme == "arch" else 224)
        return _count_kinds(fitting.build_quietly(source, shape, meta=True).state_dict())
    except (SecurityNetError, ImportError):
        return Counter({("", -1): 1})


def _fit_by_name(scheme: str, name: str, state: StateDict) -> Network | None:
    try:
        source = open_source(ModelReference(scheme=scheme, name=name))
        start = Shape(source.num_classes or 10, source.channels or 3, _SIZES[0] if scheme == "arch" else 224)
        if not fitting.match_names(source, start, state):
            return None
    except (SecurityNetError, ImportError):
        return None
    sizes = _SIZES if scheme == "arch" else _LIBRARY_SIZES
    for size in sizes if source.sized else (start.image_size,):
        try:
            shape, _ = fitting.deduce_shape(source, state, size)
            if fitting.fits(source, shape, state):
                return Network(f"{scheme}:{name}", shape, _depends_on_size(source, shape), exact=True)
        except SecurityNetError:
            continue  # this network cannot be built at this size
    return None


def _depends_on_size(source: NetworkSource, shape: Shape) -> bool:
    """Whether the weights of a network for images of twice the size have other shapes."""
    if not source.sized:
        return False
    own, other = (
        fitting.build_quietly(source, Shape(shape.num_classes, shape.channels, size), meta=True).state_dict()
        for size in (shape.image_size, 2 * shape.image_size)
    )
    return any(own[key].shape != other[key].shape for key in own)


def _describe_head(state: StateDict) -> list[Evidence]:
    """The class count by the head, or else the last matrix, and the channels by the first convolution."""
    evidence = []
    matrices = [(name, tensor) for name, tensor in state.items() if tensor.ndim == 2 and name.endswith("weight")]
    if matrices:
        # Tensors may be in the order of their names: the head is the last of those that bear the shortest such name.
        heads = [item for item in matrices if _HEADS.search(item[0])]
        least = min((name.count(".") for name, _ in heads), default=0)
        name, tensor = ([item for item in heads if item[0].count(".") == least] or matrices)[-1]
        sure = 0.8 if _HEADS.search(name) else 0.6
        reason = f"the last matrix, {name}, has {tensor.shape[0]} rows"
        evidence.append(Evidence(code="classes", value=int(tensor.shape[0]), reason=reason, confidence=sure))
    filters = [(name, tensor) for name, tensor in state.items() if tensor.ndim == 4]
    if filters and filters[0][1].shape[1] in (1, 3):
        name, tensor = filters[0]
        reason = f"the first convolution, {name}, takes {tensor.shape[1]} channels"
        evidence.append(Evidence(code="image_channels", value=int(tensor.shape[1]), reason=reason, confidence=0.9))
    return evidence


def _describe_body(state: StateDict) -> list[Evidence]:
    """The network of torchvision whose tensors these are but for the head, which people replace by layers of theirs."""
    if sum(tensor.numel() for tensor in state.values()) < _LEAST_OF_TORCHVISION:
        return []
    kinds = _count_kinds(state)
    for name in _TORCHVISION:
        if not _differ_in_head(kinds, _kinds_of("torchvision", name)):
            continue
        source = open_source(ModelReference(scheme="torchvision", name=name))
        wanted = fitting.build_quietly(source, Shape(1000, 3, _LIBRARY_SIZES[0]), meta=True).state_dict()
        fitted = fitting.fit_keys(state, wanted)
        head = list(wanted)[-1].partition(".")[0]
        body = {key: tensor.shape for key, tensor in wanted.items() if not _optional(key, head)}
        if body == {key: tensor.shape for key, tensor in fitted.items() if not _optional(key, head)}:
            reason = f"the tensors have the names and shapes of torchvision:{name}, but for {head}"
            return [Evidence(code="architecture", value=name, reason=reason, confidence=_BODY)]
    return []


def _optional(key: str, head: str) -> bool:
    return key.partition(".")[0] == head or key.endswith("num_batches_tracked")


def _differ_in_head(kinds: Counter[tuple[str, int]], wanted: Counter[tuple[str, int]]) -> bool:
    """Whether tensors differ from those of a network in a few of the kinds that a head has."""
    return (kinds - wanted).total() + (wanted - kinds).total() <= _OF_HEADS


def _describe_layers(state: StateDict) -> list[Evidence]:
    """Parameters, kind of architecture and elements, as far as names and shapes show them."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    count = sum(tensor.numel() for name, tensor in state.items() if not name.endswith(buffers))
    evidence = [Evidence(code="parameters", value=count, reason="counted in the file", confidence=0.95)]
    elements = []
    if any(name.endswith("running_mean") for name in state):
        elements.append("batch norm")
    if any(re.search(r"\b(attn|attention|qkv|in_proj_weight)", name) for name in state):
        elements.append("attention")
    if elements:
        reason = "names of the tensors"
        evidence.append(Evidence(code="elements", value=elements, reason=reason, confidence=0.95))
    convolutions = any(tensor.ndim == 4 for tensor in state.values())
    kind = "transformer" if "attention" in elements else "cnn" if convolutions else "mlp"
    evidence.append(Evidence(code="architecture_type", value=kind, reason="kinds of tensor", confidence=0.8))
    return evidence
