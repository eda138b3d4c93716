"""A safetensors file whose header names a tensor twice: programs that read it may take either."""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from securitynet.untrusted import open_regular


def check_names(path: Path) -> None:
    """Check the header of a safetensors file.

    Args:
        path: A file that safetensors has opened, so that its header is one.

    Raises:
        ValueError: If a name is there twice.
    """
    with open_regular(path) as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        json.loads(stream.read(length), object_pairs_hook=_refuse_twice)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"its header names {twice[:100]!r} twice")
    return names
