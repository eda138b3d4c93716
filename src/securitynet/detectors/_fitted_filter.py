"""A fitted input filter, and the clean images that it is fitted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._pieces import split_images
from securitynet.detectors._queries import Arrays, QueryClient, concatenate_pieces
from securitynet.errors import SplitError
from securitynet.metrics.filtering import FilterDecisions
from securitynet.models.targets.threads import leave_cores_to_threads


@dataclass(frozen=True, eq=False)
class CleanImages:
    """Images that the defender knows to be clean, N×C×H×W uint8; the two sets are disjoint.

    Attributes:
        tuning: Images for thresholds and for testing candidate regions.
        mixing: Images for overlays.
    """

    tuning: torch.Tensor
    mixing: torch.Tensor


class FittedFilter(ABC):
    """A filter that is ready to judge images.

    Attributes:
        client: Client that queries the target.
        threshold: Images with a higher score are stopped.
        nominal: False rejection rate that the threshold was chosen for, or None.
        calibration: Scores that the threshold was chosen from.
        exact: See `FilterVerdicts.exact`.
        notes: See `FilterVerdicts.notes`.
        piece: Number of images that are examined and stored together.
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
        """Compute ``scores`` and ``flagged``, N, and further arrays worth storing, with one row per image.

        Args:
            images: Images, N×C×H×W uint8.
            rows: Their numbers, N; randomness depends on these and on the purpose, not on the batch.
            purpose: Name of the group of images.
        """

    @abstractmethod
    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return pictures that explain the verdict on one image, Q×C×H×W uint8.

        Args:
            image: The image, C×H×W uint8.
            verdicts: Results of `examine` for it, arrays with one row.
            row: Its number.
            purpose: Name of its group of images.
        """

    def judge(self, images: torch.Tensor) -> FilterDecisions:
        """Return scores and verdicts for incoming images.

        Args:
            images: N×C×H×W, uint8, or floating point in [0, 1], which is rounded to 8 bits.
        """
        if images.is_floating_point():
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        with leave_cores_to_threads(self.client.target.backend.device):
            pieces = [
                self.examine(part, np.arange(start, start + len(part), dtype=np.int64), "incoming")
                for start, part in split_images(images, self.piece)
            ]
        verdicts = concatenate_pieces(pieces)
        return FilterDecisions(verdicts["scores"], verdicts["flagged"])


def check_enough(images: torch.Tensor, least: int, what: str) -> None:
    """Raise `SplitError` if there are fewer than ``least`` clean images.

    Args:
        images: Clean images.
        least: Smallest number allowed.
        what: What needs them, the subject of the message.
    """
    if len(images) < least:
        raise SplitError(
            f"{what} needs at least {least} clean images; there are {len(images)}.",
            hint="Let the defender know more records (--known), or load more (--limit).",
        )
