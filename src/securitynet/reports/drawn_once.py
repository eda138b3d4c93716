"""Figures of earlier reports, which a report of the same results need not draw again.

What draws them takes seconds to start (Altair, pandas, and a JavaScript engine in vl-convert): most of the time of a
second assessment of the same model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from securitynet.files import find_cache_folder, hash_stably, read_with_digest, write_with_digest
from securitynet.version import __version__

_FILES = ("roc.py", "roc_lines.py", "evasion.py", "groups.py", "style.py", "render.py")
"""Files of `securitynet.analysis.figures` that decide how a figure looks."""


def draw_once(content: Any, draw: Callable[[], str], cache: Path | None) -> str:
    """Return a figure from the cache, or draw it and put it there.

    Args:
        content: What the figure shows, as JSON.
        draw: Draws it: an SVG.
        cache: The cache folder; None for the user's.
    """
    key = hash_stably({"content": content, "version": __version__, "code": _hash_code()})
    path = (cache or find_cache_folder()) / "figures" / f"{key}.svg"
    try:
        payload = read_with_digest(path)
    except OSError:
        payload = None
    if payload is not None:
        return payload.decode("utf-8")
    svg = draw()
    with contextlib.suppress(OSError):  # a cache that cannot be written to costs time only
        write_with_digest(path, svg.encode("utf-8"))
    return svg


@functools.cache
def _hash_code() -> str:
    folder = resources.files("securitynet.analysis") / "figures"
    return hash_stably([(folder / name).read_text(encoding="utf-8") for name in _FILES])
