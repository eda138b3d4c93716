"""The declared interface: what the target's API tells the thief, and how its answers become something to learn from."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import ConfigurationError
from securitynet.models.targets.interface import Interface, LabelsOnly, Rounded, TopK
from securitynet.models.targets.signals import Signals

FULL = "full"
LABELS = "labels"

_FORM = re.compile(r"(top|rounded)-(\d+)")


def declared(text: str) -> Interface | None:
    """The interface for ``full`` (None), ``top-K``, ``rounded-D`` or ``labels``.

    Raises:
        ConfigurationError: If it is none of these.
    """
    if text == FULL:
        return None
    if text in (LABELS, "label-only", "labels-only"):
        return LabelsOnly()
    found = _FORM.fullmatch(text)
    number = int(found[2]) if found else 0
    if found and found[1] == "top" and number >= 1:
        return TopK(k=number)
    if found and found[1] == "rounded" and number <= 7:
        return Rounded(digits=number)
    raise ConfigurationError(
        f"The interface {text!r} is not understood.",
        hint="Write full, top-K (such as top-3), rounded-D (to 0 to 7 digits, such as rounded-2) or labels.",
    )


def learnable(signals: Signals) -> NDArray[np.float32] | NDArray[np.int64]:
    """What a surrogate is trained on: posteriors, N×K float32, or classes, N int64, where only those are answered."""
    return signals.predictions if signals.head == "labels" else completed(signals.posteriors)


def completed(answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Posteriors from answers of which something is missing: rows that sum to 1.

    What a row lacks to 1 is shared equally among the classes that it says nothing of (0): those below the top k, and
    those rounded down to 0. Rows that sum to more than 1, by rounding, are divided by their sum.

    Args:
        answers: N×K, not negative.

    Returns:
        N×K. Complete posteriors come out as they are, but for rounding.
    """
    values = answers.astype(np.float64)
    hidden = values == 0
    missing = np.clip(1 - values.sum(axis=1, keepdims=True), 0, None)
    shares = missing / np.maximum(hidden.sum(axis=1, keepdims=True), 1)
    values = np.where(hidden, shares, values)
    return np.asarray(values / values.sum(axis=1, keepdims=True), dtype=np.float32)
