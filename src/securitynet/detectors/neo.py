"""NEO: a region that determines the prediction of its image, and of other images too, is a trigger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from securitynet.detectors._filters import InputFilter
from securitynet.detectors._fitted_filter import CleanImages, FittedFilter, check_enough
from securitynet.detectors._neo import regions as _regions
from securitynet.detectors._neo.colours import find_dominant_colours
from securitynet.detectors._neo.confirm import CandidateRegions, Confirmation
from securitynet.detectors._neo.regions import Grid
from securitynet.detectors._queries import Arrays, QueryClient, Screen, bound_margin
from securitynet.models.targets import heads
from securitynet.models.targets.signals import Progress
from securitynet.randomness import derive_seed

FEWEST_HELD_OUT = 10
"""Smallest number of clean images to confirm regions with."""

GUIDED_ROUNDS = 2
"""Number of rounds of a guided search; each uses what the previous ones learned."""

RANDOM_ROUNDS = 4
"""Number of rounds of a random search, which checks after each whether a region is confirmed."""

_MOST = 60.0
"""Log-odds are clipped to this, because those of a saturated posterior are infinite."""


class Neo(InputFilter):
    """Stops an image if covering a region changes its prediction, and the region also changes those of other images.

    Udeshi et al., "Model agnostic defence against backdoor attacks in machine learning" (2019); SecurityNet, section
    3.3. A region is covered with the image's dominant colour. If that changes the prediction, the region is laid over
    held-out images at its place; if the predictions of more than ``confirmed`` of them change, the image is stopped.

    The score is the largest share of predictions that a region of the image changed; 0 if covering no region changed
    the prediction of the image itself.

    Attributes:
        regions: Largest number of regions to cover per image.
        size: Side of a region as a share of the image's side: 1/8 is 4×4 in 32×32.
        search: ``random``: places are drawn at random. ``guided``: half of them are, and the others lie near those
            whose covering lowered the posterior of the prediction most. All places can be reached.
        clusters: Number of clusters of the pixels' colours; the centre of the largest is the dominant colour.
        held_out: Largest number of clean images, besides those judged, on which regions are tried.
        confirmed: Share of predictions that must change.
        counted: ``others``: held-out images with the image's own prediction are left out, because a trigger for that
            class cannot change them. ``all``: they count as unchanged, which can hide every trigger of a model with few
            classes.
        screen: ``bf16``: query the network in bf16, and in its own precision only if the lead of the predicted logit is
            below a bound on the difference between the precisions, measured on held-out images. Predictions are the
            same, but a guided search may look at other places. For local networks only.
            ``auto``: where bf16 is faster, see `securitynet.devices.uses_bfloat16`.
    """

    judges_tuning: ClassVar[bool] = False
    costs: ClassVar[str | None] = "queries the target with hundreds of altered copies of each of thousands of images"

    regions: int = Field(default=200, ge=1, description="Largest number of regions to cover per image.")
    size: float = Field(default=0.125, gt=0, lt=1, description="Side of a region as a share of the image's: 4 of 32.")
    search: Literal["guided", "random"] = Field(
        default="guided",
        description="Choice of places: partly near those that lowered the posterior, or all at random.",
    )
    clusters: int = Field(default=3, ge=1, le=16, description="k-means clusters for the dominant colour.")
    held_out: int = Field(
        default=200, ge=FEWEST_HELD_OUT, description="Largest number of images on which regions are tried."
    )
    confirmed: float = Field(default=0.8, gt=0, lt=1, description="Share of predictions that a trigger must change.")
    counted: Literal["others", "all"] = Field(
        default="others", description="Held-out images that count: of other predictions, or all."
    )
    screen: Screen = Field(
        default="none",
        description="Query in bf16 first, and in full precision only where the "
        "prediction is in doubt; auto: where bf16 is faster.",
    )

    @property
    @override
    def tuning_images(self) -> int:
        return self.held_out

    @override
    def fitted(
        self,
        client: QueryClient,
        clean: CleanImages,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedNeo:
        check_enough(clean.tuning, FEWEST_HELD_OUT, "NEO")
        return FittedNeo(self, client, clean.tuning, seed)


@dataclass(eq=False)
class _Search:
    """The state of the search on N images with G places each.

    Attributes:
        images: Images, N×C×H×W uint8.
        labels: Their predictions, N.
        colours: Their dominant colours, N×C uint8.
        taken: Whether each place was covered, N×G.
        doubts: Decrease of the log-odds of the prediction when a place is covered, N×G.
        best: Largest share of predictions that a region changed, N.
        place: Place of that region, N; -1 for none.
    """

    images: torch.Tensor
    labels: torch.Tensor
    colours: torch.Tensor
    taken: torch.Tensor
    doubts: torch.Tensor
    best: torch.Tensor
    place: torch.Tensor


class FittedNeo(FittedFilter):
    """NEO in front of a target.

    Args:
        settings: Configuration of the detector.
        client: Client that queries the target.
        held_out: Clean images, M×C×H×W uint8.
        seed: Seed of the places.
    """

    columns = ("image", "region covered", "region moved")

    def __init__(self, settings: Neo, client: QueryClient, held_out: torch.Tensor, seed: int) -> None:
        self.settings = settings
        self.client = client
        self.held_out = held_out
        self.seed = seed
        self.threshold = settings.confirmed
        self.grid = Grid((held_out.shape[2], held_out.shape[3]), settings.size)
        predictions = client.outputs(held_out, remember=True).argmax(dim=1)
        deviations = client.deviations(held_out) if client.screens(settings.screen) else None
        self.margin = None if deviations is None else bound_margin(deviations)
        self.confirmation = Confirmation(
            client, held_out, predictions, self.grid, settings.confirmed, settings.counted == "others", self.margin
        )
        if bool((predictions == predictions[0]).all()):
            self.notes = ("The target assigns all held-out images to one class, which hides the effect of a trigger.",)
        if self.margin is not None:
            note = f"Predicted in bf16 where the lead in logits is beyond {self.margin:.2g}, else in fp32."
            self.notes = (*self.notes, note)
        elif client.screens(settings.screen):
            self.notes = (*self.notes, "The target cannot be queried in bf16.")

    def examine(self, images: torch.Tensor, rows: np.ndarray, purpose: str) -> Arrays:
        """Compute scores, verdicts and ``regions``: top, left, height and width of the best region, -1 for none."""
        keys = [derive_seed(self.seed, f"neo {purpose}", row) for row in rows.tolist()]
        streams = [torch.Generator().manual_seed(key) for key in keys]
        outputs = self.client.outputs(images, remember=True)
        state = _Search(
            images,
            outputs.argmax(dim=1),
            find_dominant_colours(images, self.settings.clusters, streams),
            torch.zeros(len(images), len(self.grid), dtype=torch.bool),
            torch.zeros(len(images), len(self.grid)),
            torch.zeros(len(images), dtype=torch.float64),
            torch.full((len(images),), -1),
        )
        own = self._log_odds(outputs, state.labels)
        budget = min(self.settings.regions, len(self.grid))
        live = torch.arange(len(images))
        for number, guided in self._rounds(budget):
            if guided:
                places = _regions.choose_promising_places(self.grid, number, state.taken[live], state.doubts[live])
            else:
                drawn = [_regions.draw_places(self.grid, number, state.taken[i], streams[i]) for i in live.tolist()]
                places = torch.stack(drawn)
            self._look(state, live, places, own)
            live = live[state.best[live] <= self.settings.confirmed]
            if not len(live):
                break
        top, left = self.grid.corners(state.place)
        regions = torch.stack(
            [top, left, torch.full_like(top, self.grid.height), torch.full_like(left, self.grid.width)], dim=1
        )
        regions[state.place < 0] = -1
        scores = state.best.numpy()
        return {
            "scores": scores,
            "flagged": scores > self.threshold,
            "regions": regions.numpy(),
            "colours": state.colours.numpy(),
        }

    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return the image, the image with its best region covered, and that region on a held-out image."""
        top, left, height, width = verdicts["regions"][0].tolist()
        other = self.held_out[0]
        if top < 0:
            return torch.stack([image, image, other])
        hidden, carrier = image.clone(), other.clone()
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        hidden[window] = torch.from_numpy(verdicts["colours"][0])[:, None, None]
        carrier[window] = image[window]
        return torch.stack([image, hidden, carrier])

    def _rounds(self, budget: int) -> list[tuple[int, bool]]:
        """Return (number of places, whether they are guided) of each round; the numbers add up to the budget."""
        if self.settings.search == "random" or budget == len(self.grid):
            return [(number, False) for number in _shares(budget, RANDOM_ROUNDS)]
        first = (budget + 1) // 2
        return [(first, False), *((number, True) for number in _shares(budget - first, GUIDED_ROUNDS))]

    def _look(self, state: _Search, live: torch.Tensor, places: torch.Tensor, own: torch.Tensor) -> None:
        """Cover R places of each of the live images, and try the regions that changed the prediction on others."""
        rows, where = live.repeat_interleave(places.shape[1]), places.flatten()
        changed = torch.zeros(len(rows), dtype=torch.bool)
        for part in torch.split(torch.arange(len(rows)), self.client.together):
            owner, place = rows[part], where[part]
            masks = self.grid.masks(place)
            hidden = _regions.cover_regions(state.images[owner], masks, state.colours[owner])
            # Covering a region that has the dominant colour already changes nothing, so no query is needed.
            differs = (hidden != state.images[owner]).flatten(1).any(dim=1)
            if not differs.any():
                continue
            owner, place = owner[differs], place[differs]
            outputs = self.client.decided(hidden[differs], self.margin)
            labels = state.labels[owner]
            changed[part[differs]] = outputs.argmax(dim=1) != labels
            state.doubts[owner, place] = own[owner] - self._log_odds(outputs, labels)
        state.taken[rows, where] = True
        if not changed.any():
            return
        candidates = CandidateRegions(rows[changed], where[changed], state.images, state.labels)
        shares = self.confirmation.shares(candidates)
        for row, place, share in zip(
            candidates.rows.tolist(), candidates.places.tolist(), shares.tolist(), strict=True
        ):
            if share > state.best[row]:
                state.best[row], state.place[row] = share, place

    def _log_odds(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of classes, N float32; for targets that return labels only, 1 or 0."""
        if self.client.target.head == "labels":
            return (outputs.argmax(dim=1) == labels).float()
        # Computed from logits, because a posterior near 1 has too few digits left for small changes.
        logits = heads.to_logits(outputs, self.client.target.head).double()
        own = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
        return (own - others).clamp(-_MOST, _MOST).float()


def _shares(total: int, parts: int) -> list[int]:
    """Split ``total`` into at most ``parts`` positive numbers that differ by at most 1."""
    numbers = [total // parts + (number < total % parts) for number in range(parts)]
    return [number for number in numbers if number]
