"""The tensors that a traced call takes and returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch


def list_operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments, including those inside a list, as einsum accepts both."""
    return list(iterate_tensors((args, kwargs)))


def identify_storage(value: torch.Tensor) -> int:
    """A key that is equal for two tensors that share memory, on every device."""
    return int(value.untyped_storage()._cdata)


def iterate_tensors(value: Any) -> Iterable[torch.Tensor]:
    """The tensors in a value, those inside lists, tuples and mappings included."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from iterate_tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from iterate_tensors(part)


def covers_input(value: torch.Tensor, operands: Sequence[torch.Tensor], result: torch.Tensor) -> bool:
    """Whether a convolution's kernel is as large as its input, so that it is a linear layer of all positions.

    Args:
        value: Input of the convolution, B×C×H×W.
        operands: Tensors that the call takes, the kernel among them.
        result: Output of the convolution.
    """
    weight = operands[1] if len(operands) > 1 else None
    sizes = tuple(value.shape[2:])
    return (
        weight is not None
        and tuple(weight.shape[2:]) == sizes
        and all(size == 1 for size in result.shape[2:])
        and any(size > 1 for size in sizes)
    )
