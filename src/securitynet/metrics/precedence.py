"""The precedence test: whether more of one sample lie beyond all of another than two samples of one kind would show."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def count_beyond(scores: NDArray[np.float64], clean: NDArray[np.float64]) -> int:
    """The number of scores above the largest clean one."""
    return int((scores > clean.max()).sum())


def compute_precedence_p_value(beyond: int, scores: int, clean: int) -> float:
    """Probability that the ``beyond`` largest of all values are scores, if scores and clean values are of one kind.

    All orders are then equally likely, so the probability is that of drawing ``beyond`` scores without replacement:
    the product of (n - i) / (n + m - i) for i from 0 to ``beyond`` - 1 (Nelson, "Tables for a precedence life test",
    1963).

    Args:
        beyond: Number of scores above all clean values, from 0 to ``scores``.
        scores: Number of scores, n.
        clean: Number of clean values, m, at least 1.
    """
    drawn = np.arange(beyond)
    return math.exp(float(np.log((scores - drawn) / (scores + clean - drawn)).sum()))
