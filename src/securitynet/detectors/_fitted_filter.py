"""A filter of inputs that is ready to judge images, and the clean images that it is made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._pieces import split_images
from securitynet.detectors._queries import Arrays, QueryClient, joined
from securitynet.errors import SplitError
from securitynet.metrics.filtering import Judged
from securitynet.models.targets.threads import leave_cores_to_threads


@dataclass(frozen=True, eq=False)
class CleanImages:
    """Images that the defender knows to be clean, uint8, N×C×H×W; no image is in both.

    Attributes:
        tuning: From which thresholds come, and on which found regions are tried.
        mixing: Which are overlaid.
    """

    tuning: torch.Tensor
    mixing: torch.Tensor


class FittedFilter(ABC):
    """A filter that is ready to judge images.

    Attributes:
        client: To the target.
        threshold: Above this score an image is stopped.
        nominal: The false rejection rate that it was chosen for, or None.
        calibration: Scores it was chosen from.
        exact: See `FilterVerdicts.exact`.
        notes: See `FilterVerdicts.notes`.
        piece: Images that are examined, and kept on disk, together.
        columns: What the pictures of an image show.
    """

    client: QueryClient
    threshold: float
    nominal: float | None = None
    calibration: NDArray[np.float64] = np.empty(0)
    exact: bool = True
    notes: tuple[str, ...] = ()
    piece: int = 64
    columns: tuple[str, ...] = ()

    @abstractmethod
    def examine(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        """``scores`` and ``flagged`` of images, N, and whatever else is worth keeping, one row an image.

        Args:
            images: N×C×H×W uint8.
            rows: Their numbers, N: randomness depends on these and on the purpose, not on what is examined together.
            purpose: What images they are.
        """

    @abstractmethod
    def pictures(self, image: torch.Tensor, found: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Q×C×H×W uint8 that show what happened with one image, C×H×W.

        Args:
            image: The image.
            found: What `examine` said of it, arrays of one row each.
            row: Its number.
            purpose: What images it is one of.
        """

    def judge(self, images: torch.Tensor) -> Judged:
        """Scores and verdicts for incoming images.

        Args:
            images: N×C×H×W, uint8, or floating point in [0, 1], which is rounded to 256 values.
        """
        if images.is_floating_point():
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        with leave_cores_to_threads(self.client.target.backend.device):
            pieces = [
                self.examine(part, np.arange(start, start + len(part), dtype=np.int64), "incoming")
                for start, part in split_images(images, self.piece)
            ]
        found = joined(pieces)
        return Judged(found["scores"], found["flagged"])


def check_enough(images: torch.Tensor, least: int, what: str) -> None:
    """Raise `SplitError` if there are fewer clean images than needed."""
    if len(images) < least:
        raise SplitError(
            f"{what} needs at least {least} clean images; there are {len(images)}.",
            hint="Let the defender know more records (--known), or load more (--limit).",
        )
