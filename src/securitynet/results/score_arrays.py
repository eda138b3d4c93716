"""The arrays of scores beside a trial, in a file that anyone may have written: they are used only if they fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_KINDS = {"indices": "iu", "scores": "fiub", "is_member": "b", "correct": "b"}
"""Arrays of one value a record -> the kinds of numbers that they may hold."""


def have_scores(arrays: Mapping[str, NDArray[Any]], *more: str) -> bool:
    """Whether arrays hold the scores of records, all of one length.

    Args:
        arrays: Name -> array.
        *more: What else must be there, besides scores and membership.
    """
    if not {"scores", "is_member", *more} <= arrays.keys():
        return False
    shape = arrays["scores"].shape
    fits = len(shape) == 1 and all(
        arrays[name].shape == shape and arrays[name].dtype.kind in kinds
        for name, kinds in _KINDS.items()
        if name in arrays
    )
    left_out = arrays.get("left_out")
    listed = left_out is None or ("indices" in arrays and left_out.ndim == 1 and left_out.dtype.kind in "iuf")
    if fits and listed:
        return True
    logger.warning("The stored scores of a trial do not fit each other and are left out.")
    return False
