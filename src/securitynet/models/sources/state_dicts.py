"""Match the tensors of a file to a network: prefixes, class counts, and a clear message if they do not fit.

Nothing is loaded in part: each tensor of the network comes from the file, and each tensor of the file is used.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from securitynet.devices import use_meta_device
from securitynet.errors import ModelError, WeightsMismatch
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.tensor_names import fit_names
from securitynet.models.sources.weights import StateDict
from securitynet.randomness import seed_global_state
from securitynet.untrusted import check_growth

_SHOWN = 4

# Two class counts show which tensors depend on them; some libraries build for CIFAR-10 and CIFAR-100 only.
_PROBES = (10, 100)

_MOST_PROBED = 64
_probed: dict[tuple[str, Shape], nn.Module] = {}


def build_quietly(
    source: NetworkSource, shape: Shape, keys: frozenset[str] = frozenset(), *, meta: bool = False
) -> nn.Module:
    """Build a network, always with the same initial weights, without changing torch's global random state.

    Args:
        source: Source of the network.
        shape: The shape to build for.
        keys: Names of the tensors that will be loaded into it.
        meta: Whether only the shapes of its tensors matter.

    Raises:
        ModelError: If its library refuses the settings by which a file describes it.
    """
    try:
        if meta and source.on_meta:
            with contextlib.suppress(RuntimeError), _quiet(), use_meta_device():
                return source.build(shape, keys)
            # Some constructors read values, which tensors on the meta device lack: such networks are built with memory.
        with _quiet():
            return source.build(shape, keys)
    except (AssertionError, TypeError, ZeroDivisionError, OverflowError, RecursionError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(
            f"{source.architecture} cannot be built as described: {words}", hint="Its settings contradict each other."
        ) from error


def check_network_memory(source: NetworkSource, shape: Shape, state: StateDict, reference: str) -> None:
    """Raise `RefusedFile` if a network would take much more memory than its weights: a line of text can describe one.

    Args:
        source: Source of the network.
        shape: The shape to build for.
        state: The weights.
        reference: Reference of the network, for the message.
    """
    if not source.on_meta:
        return
    network = build_quietly(source, shape, frozenset(state), meta=True)
    tensors = [*network.parameters(), *network.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        stored = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        check_growth(reference, stored, sum(tensor.numel() * tensor.element_size() for tensor in tensors))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how libraries initialise what the file's weights replace
        seed_global_state(0)
        yield


def deduce_shape(source: NetworkSource, state: StateDict, image_size: int, *, channels: int = 3) -> tuple[Shape, bool]:
    """Deduce the class count and channels for which weights were made from the tensors that depend on them.

    Args:
        source: Source of the network.
        state: The weights.
        image_size: Size to build for, for networks whose weights depend on it.
        channels: Used if the weights do not determine them.

    Returns:
        The shape, and whether its class count was read from the weights rather than assumed.
    """
    keys = frozenset(state)
    start = Shape(source.num_classes or _PROBES[0], source.channels or channels, image_size)
    network = _probe(source, start, keys)
    fitted = fit_keys(state, network.state_dict())
    count = _deduce_classes(source, start, fitted, keys)
    shape = Shape(count or start.num_classes, _deduce_channels(network, fitted) or start.channels, image_size)
    return shape, count is not None


def _probe(source: NetworkSource, shape: Shape, keys: frozenset[str]) -> nn.Module:
    """Build a network of which only the shapes of its tensors matter, once if nothing else determines them."""
    if not source.known_shapes:
        return build_quietly(source, shape, keys, meta=True)
    known = source.architecture, shape
    if known not in _probed:
        if len(_probed) >= _MOST_PROBED:
            _probed.clear()
        _probed[known] = build_quietly(source, shape, keys, meta=True)
    return _probed[known]


def _deduce_classes(source: NetworkSource, start: Shape, fitted: StateDict, keys: frozenset[str]) -> int | None:
    if source.fixed_classes:
        return source.num_classes
    small, large = (
        _probe(source, Shape(count, start.channels, start.image_size), keys).state_dict() for count in _PROBES
    )
    seen: Counter[int] = Counter()
    for key, tensor in small.items():
        if key not in fitted or key not in large or fitted[key].ndim != tensor.ndim:
            continue
        for axis, pair in enumerate(zip(tensor.shape, large[key].shape, strict=True)):
            if pair == _PROBES:
                seen[int(fitted[key].shape[axis])] += 1
    return seen.most_common(1)[0][0] if seen else None


def _deduce_channels(network: nn.Module, fitted: StateDict) -> int | None:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            weight = fitted.get(f"{name}.weight")
            return int(weight.shape[1]) * layer.groups if weight is not None and weight.ndim == 4 else None
    return None


def fit_keys(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> StateDict:
    """Rename the tensors in ``state`` to fit ``wanted``; see `securitynet.models.sources.tensor_names.fit_names`."""
    return fit_names(state, wanted).state


def load_weights(
    network: nn.Module,
    state: StateDict,
    *,
    reference: str,
    convert: Callable[[StateDict, nn.Module], StateDict] | None = None,
    suggest: Callable[[], str | None] = lambda: None,
) -> StateDict:
    """Load weights into a network, completely or not at all.

    Args:
        network: The network; changed in place.
        state: Tensors by the names of the file.
        reference: Reference of the network, for messages.
        convert: Converts tensors of older files to the current form; tried if they do not fit as they are.
        suggest: Called on a mismatch; returns a hint about what fits.

    Returns:
        The loaded tensors by the network's names.

    Raises:
        WeightsMismatch: If a tensor is missing, unused or of another shape.
        ModelError: If a weight is not finite.
    """
    wanted = network.state_dict()
    fitted = fit_keys(state, wanted)
    if convert is not None and _differences(fitted, wanted):
        converted = fit_keys(convert(dict(fitted), network), wanted)
        # Converters may also interpolate position embeddings to another image size, which gives another model.
        resampled = any(key in fitted and fitted[key].numel() != value.numel() for key, value in converted.items())
        if not resampled and not _differences(converted, wanted):
            fitted = converted
    wrong = _differences(fitted, wanted)
    if wrong:
        raise WeightsMismatch(f"These weights do not fit {reference}: {'; '.join(wrong)}.", hint=suggest())
    broken = [key for key, value in fitted.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(fitted)} tensors of the weights hold NaN or infinity ({_some(broken)}).",
            hint="The training may have diverged; use an earlier checkpoint.",
        )
    # Changed in place: the dictionary carries versions of modules, which they read when loading.
    wanted.update(fitted)
    network.load_state_dict(wanted, strict=True)
    return fitted


def _optional(key: str) -> bool:
    # Added to batch norm in PyTorch 0.4.1; it is not used in evaluation.
    return key.endswith("num_batches_tracked")


def _differences(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Describe why weights do not fit; empty if they do."""
    missing = [key for key in wanted if key not in state and not _optional(key)]
    extra = [key for key in state if key not in wanted]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    words = []
    if missing:
        words.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if extra:
        words.append(f"{len(extra)} are unexpected ({_some(extra)})")
    if shapes:
        pairs = [f"{key} is {_size(state[key])} where {_size(wanted[key])} is expected" for key in shapes]
        words.append(f"{len(shapes)} have another shape ({_some(pairs)})")
    return words


def fits(source: NetworkSource, shape: Shape, state: StateDict) -> bool:
    """Whether weights fit a network exactly; nothing is loaded.

    Args:
        source: Source of the network.
        shape: The shape to build for.
        state: The weights.
    """
    wanted = build_quietly(source, shape, frozenset(state), meta=True).state_dict()
    return not _differences(fit_keys(state, wanted), wanted)


def match_names(source: NetworkSource, shape: Shape, state: StateDict) -> bool:
    """Whether weights have the names of a network's tensors, whatever their shapes.

    Args:
        source: Source of the network.
        shape: The shape to build for.
        state: The weights.
    """
    wanted = build_quietly(source, shape, frozenset(state), meta=True).state_dict()
    fitted = fit_keys(state, wanted)
    return fitted.keys() <= wanted.keys() and all(key in fitted or _optional(key) for key in wanted)


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")


def _size(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
