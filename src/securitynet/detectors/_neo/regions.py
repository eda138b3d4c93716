"""Square regions of images: their places, covering them, pasting them on other images, and choosing places."""

from __future__ import annotations

import torch
from torch.nn import functional


class Grid:
    """All places of regions of a fixed size in images of a fixed size.

    Args:
        shape: Height and width of the images.
        share: Side of a region as a share of the side of an image: 1/8 gives 4×4 in 32×32.

    Attributes:
        height: Height of a region in pixels.
        width: Width of a region in pixels.
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
        """Return the top and left pixels of places, which are numbered row by row."""
        return places // self.columns, places % self.columns

    def masks(self, places: torch.Tensor) -> torch.Tensor:
        """Return the pixels of each place as masks, N×1×H×W."""
        top, left = self.corners(places)
        down, across = (torch.arange(side) for side in self.shape)
        vertical = (down >= top[:, None]) & (down < top[:, None] + self.height)
        horizontal = (across >= left[:, None]) & (across < left[:, None] + self.width)
        return (vertical[:, :, None] & horizontal[:, None, :]).unsqueeze(1)


def cover_regions(images: torch.Tensor, masks: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Cover a region of each image with one colour.

    Args:
        images: N×C×H×W.
        masks: Pixels of the regions, N×1×H×W.
        colours: N×C.
    """
    return torch.where(masks, colours[:, :, None, None], images)


def paste_regions(source: torch.Tensor, masks: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
    """Paste a region of each source image on another image at the same place.

    Args:
        source: Images that contain the regions, N×C×H×W.
        masks: Pixels of the regions, N×1×H×W.
        onto: Images to paste on, N×C×H×W.
    """
    return torch.where(masks, source, onto)


def draw_places(grid: Grid, count: int, taken: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
    """Draw ``count`` different free places uniformly, or as many as there are, int64.

    Args:
        grid: All places.
        count: Number of places.
        taken: Whether each place was drawn before, G.
        stream: Random numbers of this image.
    """
    order = torch.randperm(len(grid), generator=stream)
    return order[~taken[order]][:count]


def choose_promising_places(grid: Grid, count: int, taken: torch.Tensor, doubts: torch.Tensor) -> torch.Tensor:
    """Choose places near those whose covering lowered the log-odds of the prediction most, N×count int64.

    The decrease at a place is estimated from nearby places with Gaussian weights whose standard deviation is a third of
    the region's side.

    Args:
        grid: All places.
        count: Number of places per image, at most the number that is free in every image.
        taken: Whether each place was examined, N×G.
        doubts: Decrease of the log-odds at examined places, N×G.
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

    estimate = smooth(surplus) / (smooth(known) + 0.1)  # far from all examined places, the estimate is 0
    return estimate.masked_fill(taken, -torch.inf).topk(count, dim=1).indices
