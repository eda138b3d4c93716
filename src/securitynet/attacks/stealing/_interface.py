"""The declared interface: what the target's API returns, and how its outputs become training targets."""

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


def parse_interface(text: str) -> Interface | None:
    """Return the interface for ``full`` (None), ``top-K``, ``rounded-D`` or ``labels``.

    Raises:
        ConfigurationError: If it is none of these.
    """
    if text == FULL:
        return None
    if text in (LABELS, "label-only", "labels-only"):
        return LabelsOnly()
    match = _FORM.fullmatch(text)
    number = int(match[2]) if match else 0
    if match and match[1] == "top" and number >= 1:
        return TopK(k=number)
    if match and match[1] == "rounded" and number <= 7:
        return Rounded(digits=number)
    raise ConfigurationError(
        f"The interface {text!r} is not understood.",
        hint="Write full, top-K (such as top-3), rounded-D (to 0 to 7 digits, such as rounded-2) or labels.",
    )


def choose_training_targets(signals: Signals) -> NDArray[np.float32] | NDArray[np.int64]:
    """Return what a surrogate is trained on: posteriors, N×K float32, or classes, N int64, if nothing else is known."""
    return signals.predictions if signals.head == "labels" else complete_posteriors(signals.posteriors)


def complete_posteriors(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Complete truncated or rounded posteriors so that their rows sum to 1.

    The mass that a row lacks is spread evenly over the classes whose posterior is 0: those below the top k, and those
    rounded down to 0. Rows that sum to more than 1 because of rounding are divided by their sum.

    Args:
        outputs: N×K, not negative.

    Returns:
        N×K. Complete posteriors are unchanged, up to rounding.
    """
    values = outputs.astype(np.float64)
    hidden = values == 0
    missing = np.clip(1 - values.sum(axis=1, keepdims=True), 0, None)
    shares = missing / np.maximum(hidden.sum(axis=1, keepdims=True), 1)
    values = np.where(hidden, shares, values)
    return np.asarray(values / values.sum(axis=1, keepdims=True), dtype=np.float32)
