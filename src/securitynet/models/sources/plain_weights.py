"""Compute the weights of plain layers from what files of pruned and normalised layers hold in their place.

`torch.nn.utils.prune`, weight and spectral normalisation save the parts from which a weight follows. A network without
them takes that weight: it is computed as torch computes it in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

StateDict = dict[str, torch.Tensor]

_AXES = (0, 1)  # of outputs, in linear layers and convolutions, and in transposed convolutions


@dataclass(frozen=True)
class _Form:
    """How a file stores a weight: the endings that take the place of its name, and how they make it."""

    kind: str
    parts: tuple[str, ...]
    compute: Callable[..., torch.Tensor | None]


def compute_plain_weights(state: StateDict, wanted: Iterable[str]) -> tuple[StateDict, tuple[str, ...]]:
    """Replace the parts of pruned and normalised weights by the weights, unless the network has such parts itself.

    Args:
        state: Tensors by name.
        wanted: Names of the network's tensors.

    Returns:
        The tensors, each weight in the place of its parts, and notes on what was computed. Parts whose shapes do not
        belong together stay as they are.
    """
    wanted, result, notes = tuple(wanted), state, []
    for form in _FORMS:
        counted = 0
        for key in [key for key in result if _match_name(key, form.parts[0]) is not None]:
            place, own = _match_name(key, form.parts[0]) or ("", "")
            names = [place + part.format(own) for part in form.parts]
            others = [name for name in result if _lies_beside(name, place, own) and name not in names]
            if others or not all(name in result for name in names) or _has_kind(wanted, form.kind):
                continue
            weight = form.compute(*(result[name] for name in names))
            if weight is None:
                continue
            result = {
                (place + own if name == key else name): (weight if name == key else tensor)
                for name, tensor in result.items()
                if name == key or name not in names
            }
            counted += 1
        if counted:
            notes.append(
                f"{counted} weight{'s' * (counted > 1)} computed from the file's {form.kind} (its state in use)."
            )
    return result, tuple(notes)


def align_linear(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> tuple[StateDict, tuple[str, ...]]:
    """Reshape weights of 1×1 convolutions (K×C×1×1) and linear layers (K×C), which are the same, to what is wanted.

    Args:
        state: Tensors by the network's names.
        wanted: The network's tensors.
    """
    aligned = dict(state)
    for key in state.keys() & wanted.keys():
        have, want = state[key].shape, wanted[key].shape
        if len(have) == 4 and len(want) == 2 and have[2:] == (1, 1):
            aligned[key] = state[key].flatten(1)
        elif len(have) == 2 and len(want) == 4 and want[2:] == (1, 1):
            aligned[key] = state[key][:, :, None, None]
    changed = [key for key in state if aligned[key] is not state[key]]
    if not changed:
        return state, ()
    words = ", ".join(changed[:4]) + (", …" if len(changed) > 4 else "")
    return aligned, (f"1×1 convolutions and linear layers have the same weights: reshaped to the network's ({words}).",)


def _match_name(key: str, part: str) -> tuple[str, str] | None:
    """The place of a layer (with its dot) and the name of its weight, if a key is that part of it."""
    before, after = part.split("{}")
    place, dot, last = key.rpartition(before) if before else (*key.rpartition(".")[:2], key.rpartition(".")[2])
    if before:
        return (
            (place, last.removesuffix(after))
            if dot and last.endswith(after) and "." not in last[: -len(after)]
            else None
        )
    own = last.removesuffix(after)
    return (place + dot, own) if last.endswith(after) and own else None


def _lies_beside(name: str, place: str, own: str) -> bool:
    """Whether a tensor belongs to the same weight: a second normalisation, or a mask of what is also normalised."""
    endings = [f"{own}_{ending}" for ending in ("orig", "mask", "u", "v", "g")]
    return name in [place + own, *(place + ending for ending in endings)] or name.startswith(
        f"{place}parametrizations.{own}."
    )


def _has_kind(wanted: tuple[str, ...], kind: str) -> bool:
    firsts = [form.parts[0] for form in _FORMS if form.kind == kind]
    return any(_match_name(name, first) is not None for name in wanted for first in firsts)


def _apply_mask(original: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
    return original * mask.to(original.dtype) if original.shape == mask.shape else None


def _scale_direction(length: torch.Tensor, direction: torch.Tensor) -> torch.Tensor | None:
    """Weight normalisation: the direction, of the given length along each axis on which lengths differ."""
    if length.ndim == 0:
        return torch.mul(direction, length / torch.linalg.vector_norm(direction))
    if length.ndim != direction.ndim:
        return None
    pairs = list(zip(length.shape, direction.shape, strict=True))
    if any(own not in (1, whole) for own, whole in pairs) or sum(own > 1 for own, _ in pairs) > 1:
        return None
    axes = [axis for axis, (own, _) in enumerate(pairs) if own == 1]
    return direction * (length / torch.linalg.vector_norm(direction, dim=axes, keepdim=True)) if axes else None


def _divide_by_norm(original: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    """Spectral normalisation: the weight over its largest singular value, estimated by the stored vectors.

    Where the shape leaves open along which axis the outputs lie, it is that for which the vectors are singular ones.
    """
    norms = []
    for axis in _AXES[: original.ndim]:
        matrix = original.movedim(axis, 0).flatten(1) if original.ndim > 1 else original[:, None]
        if left.shape == matrix.shape[:1] and right.shape == matrix.shape[1:]:
            norms.append(torch.dot(left, torch.mv(matrix, right)))
    if not norms:
        return None
    if len(norms) == 1 or original.is_meta:
        return original / norms[0]
    return original / max(norms, key=lambda norm: abs(float(norm)))


_FORMS = (
    _Form("masks of pruning", ("{}_orig", "{}_mask"), _apply_mask),
    _Form("spectral normalisation", ("{}_orig", "{}_u", "{}_v"), _divide_by_norm),
    _Form(
        "spectral normalisation",
        ("parametrizations.{}.original", "parametrizations.{}.0._u", "parametrizations.{}.0._v"),
        _divide_by_norm,
    ),
    _Form("weight normalisation", ("{}_g", "{}_v"), _scale_direction),
    _Form("weight normalisation", ("parametrizations.{}.original0", "parametrizations.{}.original1"), _scale_direction),
)
