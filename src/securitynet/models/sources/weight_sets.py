"""Which weights of a file to use. Checkpoints often hold two sets: the last step's, and a running average (EMA, SWA).

The weights as trained are used unless another set is requested, and a note names the sets that were not used: the
accuracy of two sets can differ by tens of points, and only their owner knows which one was published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from securitynet.errors import ConfigurationError

NESTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "params_ema",
)
"""Usual names of sets of weights, those as trained before their averages."""

_AVERAGE = re.compile(
    r"(^|[_.-])(ema|swa|avg|averaged?|polyak|shadow|teacher|target_net(work)?)([_.-]|$)",
    re.IGNORECASE,
)
# Further state of training loops; its tensors are not weights.
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|hyper|hparam|config|^args$|rng|loops|callback|datamodule", re.IGNORECASE)
_DEPTH = 4

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class ChosenSet:
    """The chosen set of weights.

    Attributes:
        content: Entries by name; the tensors among them are the weights.
        notes: Which other sets there are.
    """

    content: Mapping[Any, Any]
    notes: tuple[str, ...] = ()


def is_average(name: str) -> bool:
    """Whether a name in a checkpoint indicates a running average of weights."""
    return _AVERAGE.search(name) is not None


def choose_set(content: Mapping[Any, Any], wanted: str | None = None, preferred: tuple[str, ...] = ()) -> ChosenSet:
    """Choose a set of weights from the content of a file.

    Args:
        content: Content of the file: weights by name, or dictionaries of them.
        wanted: Name of a set in the file, or ``average`` for the only average; the weights as trained by default.
        preferred: Names of sets, of which the first that is there is taken if none is wanted.

    Raises:
        ConfigurationError: If there is no such set.
    """
    sets = {**dict(_nested(content)), **_prefixed(content)}
    usual = _usual(content)
    first = next((name for name in preferred if name in sets), None)
    if wanted is None and first is not None:
        rivals = [key for key, tensors in sets.items() if key != first and _is_rival(tensors, sets[first])]
        return ChosenSet(sets[first], (_note(first, rivals),) if rivals else ())
    if wanted is not None:
        return ChosenSet(sets[_named(sets, wanted, usual)])
    chosen = dict(content if usual is None else usual)
    if not _direct(chosen):
        chosen = _joined(dict(_nested(chosen))) or chosen
    chosen, averages = _without_averages(chosen)
    name = next((key for key, tensors in sets.items() if tensors is usual), None)
    rivals = averages or [key for key, tensors in sets.items() if key != name and _is_rival(tensors, chosen)]
    return ChosenSet(chosen, (_note(name, rivals),) if rivals else ())


def list_other_parts(content: Mapping[Any, Any], chosen: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    """The sets of a file that hold other layers than the chosen one: further parts of the same model.

    Args:
        content: Content of the file.
        chosen: The set that was chosen from it.
    """
    own = {id(value) for value in chosen.values()}
    return [
        tensors
        for name, tensors in _nested(content)
        if not is_average(name)
        and not _is_rival(tensors, chosen)
        and not any(id(value) in own for value in tensors.values() if isinstance(value, torch.Tensor))
    ]


def _usual(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """The dictionary under the usual names, at any depth; None if there is none."""
    inner: Mapping[Any, Any] | None = None
    for _ in range(_DEPTH):
        nested = next((content[key] for key in NESTS if _holds_tensors(content.get(key))), None)
        if nested is None:
            return inner
        content = inner = nested
    return inner


def _nested(content: Mapping[Any, Any], path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Dictionaries within ``content`` that hold tensors by name: (path, dictionary)."""
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Mapping) or _NO_WEIGHTS.search(key):
            continue
        name = f"{path}{key}"
        if _direct(value):
            yield name, value
        if depth > 1:
            yield from _nested(value, f"{name}.", depth - 1)


def _direct(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and (_direct(content) or any(True for _ in _nested(content)))


def _prefixed(content: Mapping[Any, Any]) -> dict[str, Tensors]:
    """Sets that are separated by prefixes only: ``ema_model.conv.weight`` beside ``model.conv.weight``."""
    groups: dict[str, dict[str, Any]] = {}
    for holder in (content, _usual(content) or {}):
        for key, value in holder.items():
            prefix = _average_prefix(key) if isinstance(value, torch.Tensor) else None
            if prefix is not None:
                groups.setdefault(prefix, {})[key.removeprefix(f"{prefix}.")] = value
    return {prefix: group for prefix, group in groups.items() if _layers(group)}


def _average_prefix(key: Any) -> str | None:
    """The prefix of a tensor's name that marks it as part of an average; None if there is none."""
    parts = key.split(".") if isinstance(key, str) else []
    ends = range(1, min(3, len(parts)))
    return next((".".join(parts[:end]) for end in ends if is_average(parts[end - 1])), None)


def _without_averages(content: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Weights without the averages of the same weights among them, and the names of these averages."""
    rest = {key: value for key, value in content.items() if _average_prefix(key) is None}
    shapes = Counter(map(_shape, _layers(rest)))
    # A network may itself have a part of such a name. An average contains only layers that exist outside it too.
    dropped = [prefix for prefix, group in _prefixed(content).items() if Counter(map(_shape, _layers(group))) <= shapes]
    return {key: value for key, value in content.items() if _average_prefix(key) not in dropped}, dropped


def _joined(sets: Mapping[str, Mapping[Any, Any]]) -> dict[Any, Any]:
    """Sets without usual names: the only one, or parts of one network, each under its name. Averages come last."""
    plain = {name: tensors for name, tensors in sets.items() if not is_average(name)} or dict(sets)
    if len(plain) == 1:
        return dict(next(iter(plain.values())))
    return {f"{name}.{key}": value for name, tensors in plain.items() for key, value in tensors.items()}


def _is_rival(tensors: Mapping[Any, Any], chosen: Mapping[Any, Any]) -> bool:
    """Whether a set holds other values of the same network's weights."""
    theirs, ours = _layers(tensors), _layers(chosen)
    if not theirs or Counter(map(_shape, theirs)) != Counter(map(_shape, ours)):
        return False
    return not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


def _layers(content: Mapping[Any, Any]) -> list[torch.Tensor]:
    """The tensors that are weights of layers: those with at least two dimensions."""
    return [value for value in content.values() if isinstance(value, torch.Tensor) and value.ndim > 1]


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _note(name: str | None, rivals: list[str]) -> str:
    what = [f"{rival}, a running average" if is_average(rival) else rival for rival in rivals]
    return (
        f"WARNING: the file holds {len(rivals) + 1} sets of weights. {name or 'The plain one'} is taken; "
        f"--weight-set takes the other{'s' if len(rivals) > 1 else ''}: {'; '.join(what)}."
    )


def _named(sets: Mapping[str, Any], wanted: str, usual: Mapping[Any, Any] | None) -> str:
    averages = [name for name in sets if is_average(name)]
    # An average within another average is the same set.
    outermost = [name for name in averages if not any(name.startswith(f"{other}.") for other in averages)]
    if wanted in sets:
        return wanted
    if wanted == "average" and len(outermost) == 1:
        return outermost[0]
    trained = next((name for name, tensors in sets.items() if usual is not None and tensors is usual), None)
    if wanted == "trained" and trained is not None:
        return trained
    raise ConfigurationError(
        f"The file of weights holds no set {wanted!r}.",
        hint=f"It holds {', '.join(sets)}." if sets else "It holds one set only; leave --weight-set out.",
    )
