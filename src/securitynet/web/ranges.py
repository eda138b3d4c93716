"""The filter language on numbers (`securitynet.catalog.query`), on a column in memory."""

from __future__ import annotations

import re

import numpy as np

from securitynet.errors import ConfigurationError
from securitynet.web.columns import Floats, Mask

_COMPARISON = re.compile(r"^(>=|<=|>|<)\s*(.+)$")


def inside(column: Floats, text: str) -> Mask:
    """The filter language on numbers (`securitynet.catalog.query`), on a column in memory."""
    text = text.strip()
    known = np.isfinite(column)
    if text in ("none", "any"):
        return known if text == "any" else ~known
    negated = text.startswith("!")
    text = text.removeprefix("!")
    mask = np.zeros(len(column), dtype=bool)
    for part in [part.strip() for part in text.split(",") if part.strip()] or [text]:
        mask |= _part(column, part)
    return ~mask if negated else mask & known


def _part(column: Floats, part: str) -> Mask:
    comparison = _COMPARISON.match(part)
    if comparison:
        number = float(comparison[2])
        compare = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less}[comparison[1]]
        return np.asarray(compare(column, number))
    if ".." in part:
        low, high = part.split("..", 1)
        mask = np.isfinite(column)
        if low.strip():
            mask &= column >= float(low)
        if high.strip():
            mask &= column <= float(high)
        return mask
    try:
        return np.asarray(column == float(part))
    except ValueError:  # the query has been checked already
        raise ConfigurationError(f"{part[:40]!r} is no number.") from None
