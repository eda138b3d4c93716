"""Rows of hostile inputs of which `make test` runs some, and `make test-all` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def choose_rows(names: Iterable[Any], *often: Any) -> list[Any]:
    """The names as parameters: ``often``, or else the first one, for each run; the others are marked as slow."""
    names = list(names)
    assert set(often) <= set(names)
    chosen = set(often or names[:1])
    values = {name: name if isinstance(name, tuple) else (name,) for name in names}
    return [name if name in chosen else pytest.param(*values[name], marks=pytest.mark.slow) for name in names]
