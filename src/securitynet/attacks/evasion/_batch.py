"""`Batch`: the images that an evasion attack perturbs at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to perturb.

    Attributes:
        images: Images in [0, 1], n×C×H×W float32.
        labels: True classes, n int64.
        correct: Whether the target classifies them correctly, n.
        indices: Their records, n int64.
        number: Number of the batch; with the seed, it determines the random numbers.
    """

    images: torch.Tensor
    labels: torch.Tensor
    correct: torch.Tensor
    indices: NDArray[np.int64]
    number: int
