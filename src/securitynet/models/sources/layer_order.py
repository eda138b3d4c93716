"""Renamed layers: matched in order, if their shapes leave no doubt about the assignment."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from securitynet.errors import SecurityNetError
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.preprocessing import Normalization
from securitynet.models.sources.state_dicts import build_quietly
from securitynet.models.sources.tensor_names import StateDict, fit_names, separate_normalizer

Signature = tuple[tuple[str, tuple[int, ...]], ...]
"""What a layer holds: its tensors' own names and shapes."""

_SHOWN = 3


@dataclass(frozen=True)
class RenamedTensors:
    """Weights under the names of a network.

    Attributes:
        state: Tensors by the network's names.
        note: Which layers were renamed.
        normalization: What a layer that normalises images says, which is no part of the network; None if there is none.
    """

    state: StateDict
    note: str
    normalization: Normalization | None = None


def match_in_order(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> RenamedTensors | None:
    """Assign weights whose layers have other names to the layers of a network; None if that would be guesswork.

    Layers whose names and shapes match stay. The others are matched by kind, that is by their tensors and shapes: the
    n-th layer of a kind in the file with the n-th of the same kind in the network. This is safe if each kind occurs
    once, or if the file and the network list all kinds in the same order and the file keeps the order of definition.

    Args:
        state: Tensors by the names of the file, without wrappers.
        wanted: Tensors of the network.
    """
    theirs, ours = _layers(state), _layers(wanted)
    right = {name for name, signature in theirs.items() if ours.get(name) == signature}
    # A name that occurs in both with different shapes is another layer, not a renamed one.
    left = {name: signature for name, signature in theirs.items() if name not in right}
    missing = {name: signature for name, signature in ours.items() if name not in right}
    if not left or Counter(left.values()) != Counter(missing.values()):
        return None
    repeated = max(Counter(left.values()).values()) > 1
    if repeated and (list(left.values()) != list(missing.values()) or not _in_order(state, left)):
        return None
    pairs = _pairs(left, missing)
    renamed: StateDict = {}
    for key, value in state.items():
        layer, _, own = key.rpartition(".")
        new = pairs.get(layer, layer)
        renamed[f"{new}.{own}" if new else own] = value
    if len(renamed) != len(state):
        return None
    shown = [f"{old or '(top)'} → {new or '(top)'}" for old, new in list(pairs.items())[:_SHOWN]]
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    note = (
        f"{len(pairs)} of {len(theirs)} layers bear other names in the file than in the network; they were matched in "
        f"order, by their shapes ({', '.join(shown)}{more}). Check that the accuracy is what you expect."
    )
    return RenamedTensors(renamed, note)


def _pairs(left: Mapping[str, Signature], missing: Mapping[str, Signature]) -> dict[str, str]:
    """Old name -> new name: the n-th layer of a kind with the n-th."""
    waiting: dict[Signature, list[str]] = defaultdict(list)
    for name, signature in missing.items():
        waiting[signature].append(name)
    return {name: waiting[signature].pop(0) for name, signature in left.items()}


def _layers(state: Mapping[str, torch.Tensor]) -> dict[str, Signature]:
    """Layers in the order of their first name; counters of batch norms are ignored."""
    layers: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for key, value in state.items():
        layer, _, own = key.rpartition(".")
        if own != "num_batches_tracked":
            layers.setdefault(layer, []).append((own, tuple(value.shape)))
    return {layer: tuple(sorted(tensors)) for layer, tensors in layers.items()}


def _in_order(state: StateDict, layers: Mapping[str, Signature]) -> bool:
    """Whether names may be in the order of definition.

    Some kinds of files sort tensors by name, which puts ``layer10`` before ``layer2``, ``bottom`` before ``top`` and
    ``bias`` before ``weight``. Names that are sorted as text reveal an order only by their numbers.
    """
    names = list(layers)
    if names != sorted(names) or list(state) != sorted(state):
        return True
    kinds: dict[Signature, set[str]] = defaultdict(set)
    for name, signature in layers.items():
        kinds[signature].add(re.sub(r"\d+", "0", name))
    return names == sorted(names, key=_natural) and all(len(stems) == 1 for stems in kinds.values())


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def find_shape(source: NetworkSource, state: StateDict, start: Shape) -> tuple[Shape, RenamedTensors] | None:
    """Find the shape of a network that renamed weights fit in order, and these weights; None if there is none.

    Args:
        source: Source of the network.
        state: Tensors by the names of the file.
        start: Its image size is used; its class count and channels are tried first.
    """
    found = _find_shape(source, state, start)
    if found is not None:
        return found
    rest, normalization = separate_normalizer(state)
    found = _find_shape(source, rest, start) if len(rest) < len(state) else None
    return None if found is None else (found[0], replace(found[1], normalization=normalization))


def _find_shape(source: NetworkSource, state: StateDict, start: Shape) -> tuple[Shape, RenamedTensors] | None:
    layers = [tensor for tensor in state.values() if tensor.ndim > 1]
    if not layers:
        return None
    counts = (
        [start.num_classes] if source.fixed_classes else [start.num_classes, *(len(layer) for layer in layers[::-1])]
    )
    channels = dict.fromkeys((start.channels, *(layer.shape[1] for layer in layers[:1] if layer.ndim == 4)))
    for count in dict.fromkeys(counts):
        for number in channels:
            shape = Shape(count, number, start.image_size)
            try:
                wanted = build_quietly(source, shape, frozenset(state), meta=True).state_dict()
            except (SecurityNetError, RuntimeError, ValueError):
                continue  # this architecture does not support such a number
            renamed = match_in_order(fit_names(state, wanted).state, wanted)
            if renamed is not None:
                return shape, renamed
    return None
