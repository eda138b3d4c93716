"""The arrays of scores beside a trial, in a file that anyone may have written: they are used only if they fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_KINDS = {"indices": "iu", "scores": "fiub", "is_member": "b", "correct": "b"}
"""Arrays of one value a record -> the kinds of numbers that they may hold."""

NEEDED = ("scores", "is_member")


def have_scores(arrays: Mapping[str, NDArray[Any]] | None, *more: str) -> bool:
    """Whether arrays hold the scores of records, all of one length.

    Args:
        arrays: Name -> array; None if there are none.
        *more: What else must be there, besides scores and membership.
    """
    if arrays is None or not {*NEEDED, *more} <= arrays.keys():
        return False
    lengths = {arrays[name].shape for name in _KINDS if name in arrays}
    fits = all(arrays[name].dtype.kind in kinds for name, kinds in _KINDS.items() if name in arrays)
    left_out = arrays.get("left_out")
    listed = left_out is None or ("indices" in arrays and left_out.ndim == 1 and left_out.dtype.kind in "iuf")
    if len(lengths) == 1 and len(next(iter(lengths))) == 1 and fits and listed:
        return True
    logger.warning("The stored scores of a trial do not fit each other and are left out.")
    return False
