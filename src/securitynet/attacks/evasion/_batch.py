"""`Batch`: images that an evasion attack is given to perturb."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to perturb.

    Attributes:
        images: In [0, 1], n×C×H×W float32.
        labels: True classes, n int64.
        correct: Whether the target classifies them correctly, n.
        indices: Which records they are, n int64.
        number: Of the piece; with the seed, it decides the random numbers.
    """

    images: torch.Tensor
    labels: torch.Tensor
    correct: torch.Tensor
    indices: NDArray[np.int64]
    number: int
