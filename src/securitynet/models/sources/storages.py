"""Whether the tensors of a file hold the values that their shapes announce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from securitynet.errors import ModelError
from securitynet.untrusted import check_growth


def check_storages(content: Any, path: Path) -> None:
    """Raise an error if tensors would grow when they are copied: strides of zero let one value stand for billions.

    Args:
        content: What was read from the file: tensors, and containers of them.
        path: The file.

    Raises:
        RefusedFile: If the tensors would take much more memory than the file.
        ModelError: If a tensor has no values at all.
    """
    size = 0
    for tensor in _list_tensors(content):
        if tensor.is_meta:
            raise ModelError(f"{path} holds a tensor without values.", hint="Save the weights themselves.")
        if tensor.layout == torch.strided:  # others are refused by name, without being copied
            size += tensor.numel() * tensor.element_size()
    check_growth(path.name, path.stat().st_size, size)


def _list_tensors(content: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested containers. Containers that occur several times are searched once."""
    waiting, seen = [content], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, Mapping | list | tuple | set | frozenset) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, Mapping) else item
