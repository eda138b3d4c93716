"""Tests whether regions change the predictions of other images: many at once, with no more queries than needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from securitynet.detectors._neo import regions as _regions
from securitynet.detectors._neo.regions import Grid
from securitynet.detectors._queries import QueryClient

TOGETHER = 48
"""Number of held-out images on which all regions of an image are tried in parallel, before only the most successful."""


@dataclass(frozen=True, eq=False)
class CandidateRegions:
    """Regions whose covering changed a prediction.

    Attributes:
        rows: Position of the image of each region, S.
        places: Place of each region, S.
        images: All images, N×C×H×W uint8.
        labels: Their predictions, N.
    """

    rows: torch.Tensor
    places: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor


class Confirmation:
    """Pastes regions on held-out images until it is certain whether the share of changed predictions exceeds a bound.

    The verdict is the same as with all held-out images. Once one region of an image exceeds the bound, its other
    regions are not tried further.

    Args:
        client: Client that queries the target.
        held_out: Held-out images, M×C×H×W uint8.
        predictions: Their predictions, M.
        grid: Places of the regions.
        bound: The bound, in (0, 1).
        others_only: Whether to leave out held-out images with the prediction of the region's image.
        margin: See `QueryClient.decided`.
    """

    def __init__(
        self,
        client: QueryClient,
        held_out: torch.Tensor,
        predictions: torch.Tensor,
        grid: Grid,
        bound: float,
        others_only: bool,
        margin: float | None = None,
    ) -> None:
        self.client = client
        self.held_out = held_out
        self.predictions = predictions
        self.grid = grid
        self.bound = bound
        self.others_only = others_only
        self.margin = margin
        self._orders: dict[int, torch.Tensor] = {}

    def shares(self, candidates: CandidateRegions) -> torch.Tensor:
        """Return the share of tried held-out images whose predictions each region changed, S float64.

        It exceeds the bound if and only if the share over all held-out images does; it is 0 if none was tried.
        """
        count = len(candidates.rows)
        orders = [self._order(int(label)) for label in candidates.labels[candidates.rows]]
        sizes = torch.tensor([len(order) for order in orders])
        tried, changed = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        done = sizes == 0
        limits = self.bound * sizes
        while not done.all():
            chosen = self._next(candidates, done, tried, changed)
            # The smallest number that can decide, so that the shares do not depend on the batch.
            steps = torch.minimum((sizes - limits - 1e-9).ceil() - tried + changed, limits.floor() + 1 - changed)
            steps = steps.long().clamp(min=1)
            pairs = [(at, int(i)) for at in chosen for i in orders[at][tried[at] : tried[at] + steps[at]]]
            owner, image = (torch.tensor(column) for column in zip(*pairs, strict=True))
            flips = self._flips(candidates, owner, image)
            changed.index_add_(0, owner, flips.long())
            tried.index_add_(0, owner, torch.ones_like(owner))
            above = changed > limits + 1e-9
            done |= above | (changed + sizes - tried <= limits + 1e-9)
            caught = torch.zeros(len(candidates.images), dtype=torch.bool)
            caught[candidates.rows[above]] = True
            done |= caught[candidates.rows]
        return changed.double() / tried.clamp_min(1)

    def _next(
        self, candidates: CandidateRegions, done: torch.Tensor, tried: torch.Tensor, changed: torch.Tensor
    ) -> list[int]:
        """Choose the regions to try next: new ones, and the most successful of the others of each image."""
        fresh: list[int] = []
        best: dict[int, int] = {}
        for at in torch.nonzero(~done).flatten().tolist():
            if tried[at] < TOGETHER:
                fresh.append(at)
                continue
            row = int(candidates.rows[at])
            if row not in best or changed[at] * tried[best[row]] > changed[best[row]] * tried[at]:
                best[row] = at
        return fresh + list(best.values())

    def _flips(self, candidates: CandidateRegions, owner: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Return whether each region changes the prediction of a held-out image, J bool."""
        flips = torch.zeros(len(owner), dtype=torch.bool)
        for part in torch.split(torch.arange(len(owner)), self.client.together):
            at, onto = owner[part], self.held_out[image[part]]
            masks = self.grid.masks(candidates.places[at])
            pasted = _regions.paste_regions(candidates.images[candidates.rows[at]], masks, onto)
            differs = (pasted != onto).flatten(1).any(dim=1)  # identical images need no query
            if differs.any():
                labels = self.client.decided(pasted[differs], self.margin).argmax(dim=1)
                flips[part[differs]] = labels != self.predictions[image[part][differs]]
        return flips

    def _order(self, label: int) -> torch.Tensor:
        """Return the held-out images for regions of images with this prediction, in the order of the trials."""
        if label not in self._orders:
            order = (
                self.predictions != label if self.others_only else torch.ones_like(self.predictions, dtype=torch.bool)
            )
            self._orders[label] = torch.nonzero(order).flatten()
        return self._orders[label]
