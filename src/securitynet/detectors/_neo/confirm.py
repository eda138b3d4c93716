"""Whether a region changes the predictions of other images too: many regions at once, none asked longer than needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from securitynet.detectors._neo import regions as _regions
from securitynet.detectors._neo.regions import Grid
from securitynet.detectors._queries import QueryClient

TOGETHER = 48
"""Held-out images on which all regions of an image are tried side by side; then one region, the most successful first.
"""


@dataclass(frozen=True, eq=False)
class CandidateRegions:
    """Regions whose covering changed a prediction.

    Attributes:
        rows: Which image each is of, S.
        places: Where it is, S.
        images: All images, N×C×H×W uint8.
        labels: Their predictions, N.
    """

    rows: torch.Tensor
    places: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor


class Confirmation:
    """Lays regions over held-out images until it is sure on which side of the bound the share of changes lies.

    The verdict, share above ``bound`` or not, is that of trying all held-out images. Once one region of an image is
    above, the others are left as they are.

    Args:
        client: To the target.
        held_out: M×C×H×W uint8.
        predictions: Theirs, M.
        grid: Of the regions.
        bound: In (0, 1).
        others_only: Whether held-out images with the prediction of the region's image are left out.
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
        """Share of the held-out images tried whose predictions each region changed, S float64.

        It is above the bound exactly where the share of all of them is, and 0 where none was tried.
        """
        count = len(candidates.rows)
        orders = [self._order(int(label)) for label in candidates.labels[candidates.rows]]
        sizes = torch.tensor([len(order) for order in orders])
        tried, changed = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        done = sizes == 0
        limits = self.bound * sizes
        while not done.all():
            chosen = self._next(candidates, done, tried, changed)
            # As many as it takes to decide at least: the shares don't depend on what is tried side by side.
            steps = torch.minimum((sizes - limits - 1e-9).ceil() - tried + changed, limits.floor() + 1 - changed)
            steps = steps.long().clamp(min=1)
            jobs = [(at, int(i)) for at in chosen for i in orders[at][tried[at] : tried[at] + steps[at]]]
            owner, image = (torch.tensor(column) for column in zip(*jobs, strict=True))
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
        """Regions that take the next step: those at the start, and of each image's others the most successful."""
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
        """Whether each region changes the prediction of a held-out image, J bool."""
        found = torch.zeros(len(owner), dtype=torch.bool)
        for part in torch.split(torch.arange(len(owner)), self.client.together):
            at, onto = owner[part], self.held_out[image[part]]
            masks = self.grid.masks(candidates.places[at])
            pasted = _regions.moved(candidates.images[candidates.rows[at]], masks, onto)
            asked = (pasted != onto).flatten(1).any(dim=1)  # where it looks the same there already, nothing changes
            if asked.any():
                labels = self.client.decided(pasted[asked], self.margin).argmax(dim=1)
                found[part[asked]] = labels != self.predictions[image[part][asked]]
        return found

    def _order(self, label: int) -> torch.Tensor:
        """Held-out images on which regions of images with this prediction are tried, in their order."""
        if label not in self._orders:
            kept = (
                self.predictions != label if self.others_only else torch.ones_like(self.predictions, dtype=torch.bool)
            )
            self._orders[label] = torch.nonzero(kept).flatten()
        return self._orders[label]
