"""Judged images that were queried: a surrogate has seen them, so they say nothing about how well it was stolen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.copies import find_copies
from securitynet.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Unseen:
    """Records that can be judged.

    Attributes:
        records: Those that were not queried.
        equal: How many others were queried with the same pixels.
        near: How many were queried with nearly the same.
    """

    records: NDArray[np.int64]
    equal: int
    near: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """Equal and near ones, 2 int64, for storage."""
        return np.array([self.equal, self.near], dtype=np.int64)


def leave_out_queried(
    dataset: ImageDataset, judged: NDArray[np.int64], queried: tuple[ImageDataset, NDArray[np.int64]]
) -> Unseen:
    """The judged records without those whose image was queried, under whatever name and in whatever dataset.

    Args:
        dataset: Of the judged records.
        judged: The records.
        queried: The dataset, in the shape of the target's images, and the records that were queried.

    Raises:
        ConfigurationError: If none is left.
    """
    copies = find_copies(queried, (dataset, judged))
    rest = judged[~copies.second]
    if len(rest) == 0:
        raise ConfigurationError(
            f"All {len(judged):,} images on which the surrogate would be judged were queried.",
            hint="Query other images than the target's non-members, or set a smaller budget.",
        )
    return Unseen(rest, int(copies.second_exact.sum()), int(copies.second_near.sum()))
