"""Match the names of tensors in a file to those of a network: remove wrappers and leave out what is saved beside it.

Training code wraps networks (data parallelism, compilation, checkpointed activations, averaging, adversarial training)
and saves other objects beside them (losses, metrics, an attacker). The file reveals all of that only by its names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from securitynet.models.sources.plain_weights import align_linear, compute_plain_weights
from securitynet.models.sources.preprocessing import Normalization
from securitynet.models.sources.weight_sets import is_average

StateDict = dict[str, torch.Tensor]

_PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "backbone.", "encoder.", "classifier.", "student.")
# Parts of names that wrappers insert anywhere before or within a network's own names.
_WRAPPERS = (
    "module",
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_forward_module",
    "_ddp_module",
    "_module",
)
# Counters that the profiler thop leaves in saved networks; they are not used in any computation.
_COUNTERS = ("total_ops", "total_params")
# What is saved beside a network without belonging to it, by the first part of its name.
_COMPANIONS = (
    "criterion", "loss", "losses", "loss_fn", "loss_func", "loss_function", "attacker", "normalizer", "normalize",
    "normalise", "normalization", "metric", "metrics", "accuracy", "acc", "train_acc", "val_acc", "valid_acc",
    "test_acc", "train_accuracy", "val_accuracy", "test_accuracy", "train_metrics", "val_metrics", "valid_metrics",
    "test_metrics", "train_loss", "val_loss", "confmat", "confusion_matrix", "n_averaged", "initted", "step", "mean",
    "std", "mu", "sigma", "pos_weight", "class_weight", "class_weights",
)  # fmt: skip
_MOMENTS = {"mean": ("mean", "_mean", "new_mean", "mu"), "std": ("std", "_std", "new_std", "sigma")}
_COLOUR = 3
_SHOWN = 4
_TRIES = 32  # nested wrappers are few; the bound limits the cost of malicious files


@dataclass(frozen=True)
class MatchedState:
    """Tensors under the names of a network, as far as they could be matched.

    Attributes:
        state: Tensors by the best matching names.
        notes: What was left out.
        normalization: Normalisation that the file holds beside the network; None if there is none.
    """

    state: StateDict
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None


def fit_names(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> MatchedState:
    """Rename the tensors in ``state`` to fit ``wanted`` best.

    The fit decides which wrappers to remove, since a network may itself have a part called ``model``. Only tensors
    known not to belong to a network are left out; any others that do not fit stay, and are reported. Weights that a
    file holds in parts, or as a 1×1 convolution in place of a linear layer, are brought to the network's form.
    """
    names = set(wanted)
    state, computed = compute_plain_weights(state, names)
    best: dict[str, str] = {key: key for key in state}
    best_score = (-1, 0)
    for candidate in _renamings(state, names):
        score = len(names.intersection(candidate.values())), -len(candidate)
        if score > best_score:
            best, best_score = candidate, score
    best = _parametrized(best, names)
    fitted = {best[old]: state[old] for old in state if old in best}
    beside = {old: state[old] for old in state if old not in best}
    strangers = [key for key in fitted if key not in names]
    known = [key for key in strangers if _is_companion(key)]
    counters = [key for key in strangers if key.rpartition(".")[2] in _COUNTERS]
    state = {key: value for key, value in fitted.items() if key not in known and key not in counters}
    left = [*beside, *known]
    state, aligned = align_linear(state, wanted)
    note = (f"left out of the file, as no part of the network: {_some(left)}.",) if left else ()
    stated = _normalization({**beside, **{key: fitted[key] for key in known}})
    return MatchedState(state, (*_average_note(left, fitted | beside), *computed, *aligned, *note), stated)


def separate_normalizer(state: StateDict) -> tuple[StateDict, Normalization | None]:
    """The tensors without the layer that normalises images, and what it says; all of them if there is no such layer.

    Adversarial training puts such a layer before the network, as its first part: ``0.mean``, ``0.std``, ``1.conv1...``.

    Args:
        state: Tensors by the names of the file.
    """
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        layer, _, own = key.rpartition(".")
        layers.setdefault(layer, {})[own] = value
    moments = [set(names) for names in _MOMENTS.values()]
    found = [
        layer
        for layer, tensors in layers.items()
        if len(tensors) == 2
        and all(names & tensors.keys() for names in moments)
        and all(tensor.numel() in (1, 3) for tensor in tensors.values())
    ]
    if len(found) != 1:
        return state, None
    apart = {f"{found[0]}.{name}" if found[0] else name: tensor for name, tensor in layers[found[0]].items()}
    rest = {key: value for key, value in state.items() if key not in apart}
    known = not any(tensor.is_meta for tensor in apart.values())  # or else only its shape
    stated = _normalization(apart) if known else None
    return rest, stated


def _average_note(left: list[str], values: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    counts = [int(values[key]) for key in left if key.rpartition(".")[2] == "n_averaged" and values[key].numel() == 1]
    return (f"the weights are an average over training (n_averaged {counts[0]}).",) if counts else ()


def _normalization(beside: Mapping[str, torch.Tensor]) -> Normalization | None:
    """Mean and deviation of a normaliser that was saved beside the network."""
    pairs: dict[str, dict[str, tuple[float, ...]]] = {}
    for key, value in beside.items():
        parts = key.split(".")
        kind = next((kind for kind, names in _MOMENTS.items() if parts[-1] in names), None)
        if kind is not None and value.numel() in (1, 3):
            numbers = tuple(float(f"{number:.6g}") for number in value.flatten().tolist())
            pairs.setdefault(".".join(parts[:-1]), {})[kind] = numbers
    whole = [(pair["mean"], pair["std"]) for pair in pairs.values() if len(pair) == 2 and min(pair["std"]) > 0]
    if not whole or any(pair != whole[0] for pair in whole):
        return None
    mean, std = whole[0]
    return Normalization((), ()) if set(mean) == {0.0} and set(std) == {1.0} else Normalization(mean, std)


def _is_companion(key: str) -> bool:
    parts = [part for part in key.split(".") if part not in _WRAPPERS]
    return bool(parts) and (parts[0] in _COMPANIONS or parts[-1] == "n_averaged")


def _renamings(state: StateDict, wanted: set[str]) -> Iterator[dict[str, str]]:
    """Possible renamings, from no change to several wrappers removed: old name -> new name, without extra tensors."""
    seen: set[frozenset[str]] = set()
    queue = [{key: key for key in state}]
    for _ in range(_TRIES):
        if not queue:
            return
        current = queue.pop(0)
        values = frozenset(current.values())
        if len(values) < len(current) or values in seen:
            continue  # two tensors would get one name
        seen.add(values)
        yield current
        yield from _inside(current, state, wanted)
        common = _common_prefix(values)
        for prefix in dict.fromkeys((*_PREFIXES, *([common] if common else []))):
            if any(name.startswith(prefix) for name in values):
                queue.append({old: new.removeprefix(prefix) for old, new in current.items()})
        for wrapper in _WRAPPERS:
            if any(f".{wrapper}." in f".{name}" for name in values):
                queue.append({old: _without(new, wrapper) for old, new in current.items()})
        added = _common_prefix(wanted)
        if added and not any(name.startswith(added) for name in values):
            queue.append({old: added + new for old, new in current.items()})


def _without(name: str, wrapper: str) -> str:
    return ".".join(part for part in name.split(".") if part != wrapper)


def _inside(current: dict[str, str], state: StateDict, wanted: set[str]) -> Iterator[dict[str, str]]:
    """The network as one part of the file: all its names under one prefix, beside tensors that do not belong to it.

    Tensors beside it are left out if their names say what they are, or if they are not weights of layers. If several
    prefixes hold the whole network, averages and attackers come last.
    """
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if not needed:
        return
    anchor = max(needed, key=len)
    values = set(current.values())
    prefixes = [name.removesuffix(anchor) for name in values if name.endswith(f".{anchor}")]
    whole = [prefix for prefix in prefixes if all(prefix + name in values for name in needed)]
    for prefix in sorted(whole, key=lambda prefix: (_is_other(prefix), len(prefix), prefix)):
        others = {new: state[old] for old, new in current.items() if not new.startswith(prefix)}
        if all(_is_companion(key) or _of_other(key, whole) or _is_small(value) for key, value in others.items()):
            yield {old: new.removeprefix(prefix) for old, new in current.items() if new.startswith(prefix)}


def _of_other(name: str, prefixes: list[str]) -> bool:
    """Whether a tensor belongs to an average or an attacker, which holds a second copy of the same network."""
    return any(name.startswith(prefix) for prefix in prefixes if _is_other(prefix))


def _is_small(tensor: torch.Tensor) -> bool:
    """Whether it is not a weight of a layer: class weights of a loss, states of metrics, constants of a normaliser."""
    return tensor.ndim <= 1 or tensor.numel() <= _COLOUR


def _is_other(prefix: str) -> bool:
    return any(part == "attacker" or is_average(part) for part in prefix.split("."))


def _parametrized(names: dict[str, str], wanted: set[str]) -> dict[str, str]:
    """Names of weight and spectral normalisation, which exist in an old and a new form, in the form of the network."""
    pairs = (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
        ("weight_orig", "parametrizations.weight.original"),
        ("weight_u", "parametrizations.weight.0._u"),
        ("weight_v", "parametrizations.weight.0._v"),
    )
    changed = dict(names)
    for old, new in names.items():
        if new in wanted:
            continue
        for first, second in (*pairs, *((second, first) for first, second in pairs)):
            if new.endswith(f".{first}") and f"{new.removesuffix(first)}{second}" in wanted:
                changed[old] = f"{new.removesuffix(first)}{second}"
    return changed if len(set(changed.values())) == len(changed) else names


def _common_prefix(names: set[str] | frozenset[str]) -> str | None:
    firsts = {name.partition(".")[0] for name in names}
    return f"{firsts.pop()}." if len(firsts) == 1 and all("." in name for name in names) else None


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
