"""Square regions of images: where they may lie, covering them, moving them to other images, choosing where to look."""

from __future__ import annotations

import torch
from torch.nn import functional


class Grid:
    """All places of a region of one size in images of one size.

    Args:
        shape: Height and width of the images.
        share: Side of a region as a share of the side of an image: 1/8 gives 4×4 in 32×32.

    Attributes:
        height: Of a region, in pixels.
        width: Of a region.
        rows: Number of places from top to bottom; the last one touches the border.
        columns: Number of places from left to right.
    """

    def __init__(self, shape: tuple[int, int], share: float) -> None:
        self.shape = shape
        self.height, self.width = (max(1, min(side, int(side * share + 0.5))) for side in shape)
        self.rows, self.columns = shape[0] - self.height + 1, shape[1] - self.width + 1

    def __len__(self) -> int:
        return self.rows * self.columns

    def corners(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Top and left pixel of places, which are numbered row by row."""
        return places // self.columns, places % self.columns

    def masks(self, places: torch.Tensor) -> torch.Tensor:
        """The pixels of each place, N×1×H×W."""
        top, left = self.corners(places)
        down, across = (torch.arange(side) for side in self.shape)
        vertical = (down >= top[:, None]) & (down < top[:, None] + self.height)
        horizontal = (across >= left[:, None]) & (across < left[:, None] + self.width)
        return (vertical[:, :, None] & horizontal[:, None, :]).unsqueeze(1)


def covered(images: torch.Tensor, masks: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Images whose region has one colour: N×C×H×W, from N×C×H×W, N×1×H×W and N×C."""
    return torch.where(masks, colours[:, :, None, None], images)


def moved(source: torch.Tensor, masks: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
    """Images that show another image's region at its place, N×C×H×W each."""
    return torch.where(masks, source, onto)


def random_places(grid: Grid, count: int, taken: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
    """Different places that are not taken, all equally likely: ``count``, or as many as there are, int64.

    Args:
        grid: All places.
        count: How many are wanted.
        taken: Places that were drawn already, G bool.
        stream: Of this image.
    """
    order = torch.randperm(len(grid), generator=stream)
    return order[~taken[order]][:count]


def promising_places(grid: Grid, count: int, taken: torch.Tensor, doubts: torch.Tensor) -> torch.Tensor:
    """Places near to those whose covering made the target doubt its prediction most, N×count int64.

    The doubt at a place is estimated from places nearby, weighted by a Gaussian whose deviation is a third of the
    region's side.

    Args:
        grid: All places.
        count: How many are wanted for each image, at most as many as are free in all of them.
        taken: Places that were examined, N×G bool.
        doubts: What covering each of them did, N×G; looked at where they were examined.
    """
    known = taken.float()
    mean = (doubts * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp_min(1)
    surplus = torch.where(taken, doubts - mean, torch.zeros_like(doubts))

    def smooth(values: torch.Tensor) -> torch.Tensor:
        values = values.view(-1, 1, grid.rows, grid.columns)
        for side, shape in ((grid.height, (1, 1, -1, 1)), (grid.width, (1, 1, 1, -1))):
            at = torch.arange(-side, side + 1, dtype=torch.float32)
            kernel = torch.exp(-0.5 * (at / max(side / 3, 0.5)) ** 2).view(shape)
            values = functional.conv2d(values, kernel, padding="same")
        return values.flatten(1)

    estimate = smooth(surplus) / (smooth(known) + 0.1)  # far from all that is known, nothing is promised
    return estimate.masked_fill(taken, -torch.inf).topk(count, dim=1).indices
