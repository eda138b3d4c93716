"""Reduce the return values of networks to one row of class scores per image.

Objects with ``logits``, mappings, tuples, N×K×1×1 maps, a single score for two classes, and a final sigmoid are all
converted when a network is opened, so later code need not handle them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from securitynet.errors import TargetError

_NAMES = ("logits", "scores", "output", "outputs", "out", "pred", "predictions", "probabilities", "probs")
_PROBE = 4
_RETURN = "Let it return one tensor of images × classes: the scores of the classes."
_SIGMOIDS = frozenset(
    {torch.sigmoid, torch.sigmoid_, torch.Tensor.sigmoid, torch.Tensor.sigmoid_, torch.special.expit}
    | {nn.functional.sigmoid}
)

Part = str | int | None
"""Which part of what a network returns holds the scores: a key or attribute, a position, or None for the whole."""


class AdaptedNetwork(nn.Module):
    """A network whose outputs are reduced to one row of class scores per image.

    Args:
        inner: The network.
        part: Position of the scores in its outputs.
        before_sigmoid: Whether to take the scores before the sigmoid that ends the network. This is exact and gives the
            gradients of logits, whereas inverting the sigmoid would lose precision where it saturates.
        single: Kind of a single score for two classes; None if there is a score for each class.
    """

    def __init__(
        self,
        inner: nn.Module,
        *,
        part: Part = None,
        before_sigmoid: bool = False,
        single: Literal["logit", "probability"] | None = None,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.part = part
        self.before_sigmoid = before_sigmoid
        self.single = single

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.before_sigmoid:
            with _Sigmoids() as sigmoids:
                result = self.inner(images)
            scores = take_part(result, self.part)
            scores = sigmoids.undo(scores)
        else:
            scores = take_part(self.inner(images), self.part)
        if scores.ndim == 1 and len(images) == 1 and self.single is None:
            scores = scores.unsqueeze(0)  # the network squeezes the batch dimension of one image
        scores = flatten_scores(scores)
        return scores if self.single is None else expand_single(scores, self.single)


def adapt_outputs(
    network: nn.Module, example_shape: tuple[int, int, int], *, classes: int | None, reference: str
) -> tuple[nn.Module, list[str]]:
    """Wrap a network so that it returns one row of class scores per image; also return notes on the changes made.

    The network itself is returned if it needs no change, if the scores are the first of several outputs, and if it
    rejects such images (the error then comes from its first use).

    Args:
        network: The network, in any mode; it is left in evaluation mode.
        example_shape: (C, H, W) of its inputs.
        classes: Number of classes, if known.
        reference: Reference of the model, for messages.

    Raises:
        TargetError: If it is unclear which output holds the scores; the message says what to return.
    """
    network.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((_PROBE, *example_shape), generator=generator)
    try:
        with torch.no_grad(), _Sigmoids() as sigmoids:
            result = network(images)
    except Exception:  # networks of unknown origin may raise anything; the first use reports it
        return network, []
    part = find_part(result, classes, reference)
    scores = take_part(result, part)
    notes = []
    if part not in (None, 0):
        notes.append(f"the class scores are taken from {_described(part)} of what the network returns.")
    alike = [value for value in _parts(result).values() if _is_rows(value) and value is not scores]
    alike = [value for value in alike if value.shape == scores.shape]
    if alike:
        notes.append(
            f"the network returns {1 + len(alike)} outputs of shape {'×'.join(map(str, scores.shape[1:]))}; "
            f"{'the first' if part in (None, 0) else _described(part)} is taken for the class scores (to take another, "
            "wrap the network in one whose forward returns that alone, and give it as python:FILE:FACTORY)."
        )
    check_labels(scores, reference)
    before_sigmoid = sigmoids.ends_in(scores)
    flat = flatten_scores(scores)
    if flat.ndim != 2 or len(flat) != _PROBE:
        return network, []  # reported with its shape at the first use
    single: Literal["logit", "probability"] | None = None
    if flat.shape[1] == 1:
        unit = not before_sigmoid and bool(((flat >= 0) & (flat <= 1)).all())
        single = "probability" if unit else "logit"
        notes.append(
            "one output for two classes: "
            + ("its probability" if unit else "its logit")
            + " is that of class 1, and class 0 has the rest."
        )
    if before_sigmoid:
        notes.append("the network ends in a sigmoid; scores and gradients are those of the logits before it.")
    plain = part in (None, 0) and flat.shape == scores.shape and not before_sigmoid and single is None
    if plain:
        return network, notes
    return AdaptedNetwork(network, part=part, before_sigmoid=before_sigmoid, single=single), notes


def check_labels(scores: Any, reference: str) -> None:
    """Raise `TargetError` if a network returns a whole number an image: its class, and not the classes' scores."""
    if not isinstance(scores, torch.Tensor) or scores.is_floating_point():
        return
    flat = flatten_scores(scores)
    if flat.ndim == 2 and flat.shape[1] == 1:
        raise TargetError(
            f"{reference} returns whole numbers ({scores.dtype}, {'×'.join(map(str, scores.shape))}): labels of "
            "classes, not their scores.",
            hint="Leave out the argmax at its end. If labels are all that there is, return rows with a single 1, "
            "torch.nn.functional.one_hot(labels, NUMBER_OF_CLASSES).float(), and assess with --defense label-only.",
        )


def describe_missing(error: Exception) -> str | None:
    """Name the arguments that a network or a function lacked when it was called with images alone; None if none."""
    found = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)", str(error))
    return found[1] if isinstance(error, TypeError) and found else None


def find_part(result: Any, classes: int | None, reference: str) -> Part:
    """Find the position of the class scores in the return value of a network.

    Args:
        result: The return value.
        classes: Number of classes, if known.
        reference: Reference of the model, for messages.

    Raises:
        TargetError: If it is unclear which part holds them.
    """
    if isinstance(result, torch.Tensor):
        return None
    parts = _parts(result)
    widths = {part: flatten_scores(value).shape[1] for part, value in parts.items() if _is_rows(value)}
    if not widths:
        raise TargetError(f"{reference} returns {_summary(result)}.", hint=_RETURN)
    named = [name for name in _NAMES if name in widths]
    if named and classes in (None, widths[named[0]], 1 + widths[named[0]]):
        return named[0]
    if 0 in widths and classes in (None, widths[0]):
        return 0  # auxiliary classifiers come after the main one
    fitting = [part for part, width in widths.items() if width == classes]
    if len(fitting) == 1:
        return fitting[0]
    if len(widths) == 1:
        return next(iter(widths))
    raise TargetError(
        f"{reference} returns {_summary(result)}; which of them are the scores of the classes is not plain.",
        hint=_RETURN,
    )


def take_part(result: Any, part: Part) -> torch.Tensor:
    """The tensor at a position in the return value of a network."""
    if part is None:
        value = result[0] if isinstance(result, (tuple, list)) and result else result
    elif isinstance(part, int):
        value = result[part]
    else:
        value = result[part] if isinstance(result, Mapping) else getattr(result, part)
    return value  # type: ignore[no-any-return]


def take_scores(result: Any, reference: str) -> torch.Tensor:
    """Class scores of a network that was not adapted: the tensor itself, the first of several, or the one named so.

    Raises:
        TargetError: If there is no such tensor.
    """
    return take_part(result, find_part(result, None, reference))


def flatten_scores(scores: torch.Tensor) -> torch.Tensor:
    """Reshape N×K×1×1 to N×K and N to N×1; leave other shapes unchanged."""
    if scores.ndim == 1:
        return scores[:, None]
    if scores.ndim > 2 and all(size == 1 for size in scores.shape[2:]):
        return scores.flatten(1)
    return scores


def expand_single(scores: torch.Tensor, kind: Literal["logit", "probability"]) -> torch.Tensor:
    """Expand one score of class 1, N×1, to two columns: logits (0, z) or probabilities (1 - p, p)."""
    other = torch.zeros_like(scores) if kind == "logit" else 1 - scores
    return torch.cat([other, scores], dim=1)


class _Sigmoids(TorchFunctionMode):
    """Records the arguments of the sigmoids that are computed in its context."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _SIGMOIDS or not args:
            return func(*args, **(kwargs or {}))
        argument = args[0].clone() if func.__name__.endswith("_") else args[0]
        result = func(*args, **(kwargs or {}))
        self._calls.append((argument, result))
        return result

    def ends_in(self, scores: torch.Tensor) -> bool:
        """Whether these scores are the output of the last sigmoid, possibly reshaped."""
        if not self._calls:
            return False
        result = self._calls[-1][1]
        return result is scores or (
            isinstance(result, torch.Tensor)
            and isinstance(scores, torch.Tensor)
            and result.numel() == scores.numel()
            and result.data_ptr() == scores.data_ptr()
        )

    def undo(self, scores: torch.Tensor) -> torch.Tensor:
        """The input of the last sigmoid, in the shape of the scores."""
        argument, result = self._calls[-1]
        return argument if result is scores else argument.reshape(scores.shape)


def _parts(result: Any) -> dict[str | int, Any]:
    if isinstance(result, Mapping):
        return {key: value for key, value in result.items() if isinstance(key, str)}
    if isinstance(result, (tuple, list)):
        fields = getattr(result, "_fields", None)
        named = {name: getattr(result, name) for name in fields or () if name in _NAMES}
        return {**named, **dict(enumerate(result))}
    return {name: getattr(result, name) for name in _NAMES if hasattr(result, name)}


def _is_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and flatten_scores(value).ndim == 2


def _described(part: Part) -> str:
    return f"number {part}" if isinstance(part, int) else f"{part!r}"


def _summary(result: Any) -> str:
    parts = _parts(result)
    if not parts:
        return f"{type(result).__name__}, not one row of class scores per image"
    shapes = [
        f"{_described(part)} of shape {'×'.join(map(str, value.shape))}" if isinstance(value, torch.Tensor)
        else f"{_described(part)} ({type(value).__name__})"
        for part, value in list(parts.items())[:6]
    ]  # fmt: skip
    return f"{type(result).__name__} with {', '.join(shapes)}"
