"""Class pairs: the smallest trigger from each class to each other one; all-to-all and source-specific backdoors."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._boxes import Box, list_boxes
from securitynet.detectors._class_pairs.output import PairNorms
from securitynet.detectors._class_pairs.patches import confirm_leads, find_best_patch, search_patches, split_own
from securitynet.detectors._class_pairs.search import PairTriggers, apply_triggers, search_pairs
from securitynet.detectors.base import Detector, list_clean_images
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.class_pairs import compute_shares
from securitynet.metrics.pair_leads import LeadTest, find_leading_pair
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_IMAGES = 4
"""Images of a class without which it is no source."""

MOST_FRESH = 16
"""Most images of a source class on which triggers are tried afterwards."""

PICTURED = 5
"""Pairs whose masks are stored: those that are smallest compared with what the classes suggest."""

PATCH_SEARCH = 0.4
"""Share of the search of patches in the work that is reported as progress."""


class ClassPairs(Detector):
    """Find, for each source class and each target class, the smallest trigger that turns images of the one into it.

    The search of Neural Cleanse (Wang et al., 2019, section V-A) on images of one class at a time, as in the search for
    source-conditional backdoors of K-Arm (Shen et al., "Backdoor scanning for deep neural networks through K-Arm
    optimization", 2021, section 4.3), without its bandit: all pairs are searched alike, because norms are then compared
    with one another (`securitynet.metrics.class_pairs`). A trigger that leads each class to another one has a small
    norm for its pairs, and none for all images.

    A trigger for images of one class only is small, too, but hardly smaller than what turns a class into a similar one.
    So a small patch is optimised for each pair and at each of several places, too. Where a network was trained on a
    trigger, one place does for one pair what it does for no other pair, and no other place does
    (`securitynet.metrics.pair_leads`).

    The images are records that the defender knows and the model was not trained on, and that it classifies correctly.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = PairNorms
    version: ClassVar[int] = 3  # single pairs are judged by patches, no longer by their norms
    costs: ClassVar[str | None] = "optimises triggers for each pair of classes, which takes many passes of the target"

    images: int = Field(default=12, ge=FEWEST_IMAGES, description="Images of each source class; fewer if fewer known.")
    steps: int = Field(default=150, ge=8, description="Steps of the search of a pair.")
    success: float = Field(default=0.9, gt=0, le=1, description="Least share of images for a trigger to work.")
    restarts: int = Field(default=1, ge=1, description="Starting points; a pair's norm is the smallest of them.")
    patch: float = Field(default=0.2, gt=0, lt=1, description="Side of the patches, as a share of the shorter side.")
    positions: int = Field(default=6, ge=2, description="Places of the patches along each side, evenly spaced.")
    patch_steps: int = Field(default=5, ge=1, description="Steps of the search of a patch.")
    most_pairs: int = Field(
        default=400, ge=20, description="With more pairs than this, as many are drawn at random, in both directions."
    )

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> PairNorms:
        own = self._choose_images(target, data, context.seed)
        sources = np.array([label for label, one in enumerate(own) if one is not None], dtype=np.int64)
        searched, fresh = self._split_images(own)
        with torch.inference_mode():
            classes = int(target.module(searched[:1, 0]).shape[1])
        pairs = self._choose_pairs(sources, classes, context.seed)
        # Where the images of a pair's source are among those of all sources.
        placed = torch.from_numpy(np.stack([np.searchsorted(sources, pairs[:, 0]), pairs[:, 1]], axis=1))

        def report_share(share: float) -> None:
            if context.progress:
                context.progress(round(1000 * share), 1000)

        results = []
        for number in range(self.restarts):

            def report_search(share: float, number: int = number) -> None:
                report_share((1 - PATCH_SEARCH) * (number + share) / self.restarts)

            results.append(
                search_pairs(
                    target,
                    searched,
                    placed,
                    steps=self.steps,
                    success=self.success,
                    seed=derive_seed(context.seed, "class-pairs", number),
                    report_progress=report_search,
                )
            )
        norms = np.full((self.restarts, len(own), classes), np.nan)
        norms[:, pairs[:, 0], pairs[:, 1]] = np.stack([result.norms.numpy() for result in results])
        boxes = list_boxes(tuple(data.dataset.image_shape[1:]), self.patch, self.positions)
        margins, patched = np.full((2, len(own), classes, len(boxes)), np.nan)
        margins[pairs[:, 0], pairs[:, 1]], patched[pairs[:, 0], pairs[:, 1]] = search_patches(
            target,
            own,
            pairs,
            boxes,
            steps=self.patch_steps,
            seed=context.seed,
            report_progress=lambda share: report_share(1 - PATCH_SEARCH * (1 - share)),
        )
        confirm_leads(target, own, margins, patched, boxes, steps=self.patch_steps, seed=context.seed)
        success, pictures, shown = _try_masks(target, norms, pairs, results, fresh)
        leading = find_leading_pair(margins, np.array(boxes))
        if leading is not None:
            picture = self._draw_patch(target, own[leading.pair[0]], leading, boxes, context.seed)
            pictures, shown = [picture, *pictures], [leading.pair, *shown]
        names = data.dataset.class_names
        count = max(norms.shape[1:])
        return PairNorms(
            norms,
            success,
            margins,
            patched,
            np.array(boxes, dtype=np.int64),
            np.stack(pictures) if pictures else np.zeros((0, 4, 1, 1, 1), np.uint8),
            np.array(shown, dtype=np.int64).reshape(-1, 2),
            tuple(names[label] if label < len(names) else str(label) for label in range(count)),
        )

    def _draw_patch(
        self, target: Target, own: torch.Tensor | None, leading: LeadTest, boxes: list[Box], seed: int
    ) -> NDArray[np.uint8]:
        """Pictures of the leading patch, 4×C×H×W: an image, the square as a mask, the patch, and the image with it."""
        assert own is not None  # it is a source
        place, (top, left, side) = leading.place, boxes[leading.place]
        patch = find_best_patch(target, own, leading.pair, place, boxes, steps=self.patch_steps, seed=seed)
        image = split_own(own)[1][0]
        mask, pattern = torch.zeros_like(image[:1]), torch.zeros_like(image)
        mask[:, top : top + side, left : left + side] = 1
        pattern[:, top : top + side, left : left + side] = patch
        return _draw(image, mask, pattern)

    def _choose_images(self, target: Target, data: TrialData, seed: int) -> list[torch.Tensor | None]:
        """Images of each class that are classified correctly, N×C×H×W in [0, 1]; None for classes with too few."""
        known = list_clean_images(data)
        chosen: list[torch.Tensor | None] = []
        for label in range(data.dataset.num_classes):
            own = known[data.dataset.labels[known] == label]
            own = own[shuffle(len(own), "class-pairs", seed, label)[: 2 * (self.images + MOST_FRESH)]]
            images = data.dataset.batch(own).to(target.backend.device).float() / 255
            if len(own):
                with torch.inference_mode():
                    images = images[target.module(images).argmax(dim=1) == label]
            chosen.append(images[: self.images + MOST_FRESH] if len(images) >= FEWEST_IMAGES else None)
        if all(images is None for images in chosen):
            raise ConfigurationError(
                f"No class has {FEWEST_IMAGES} known images that {target.reference} classifies correctly.",
                hint="Give more clean images (--known), and check the preprocessing (--normalize).",
            )
        return chosen

    def _split_images(self, own: list[torch.Tensor | None]) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Images for the search of masks, S×n×C×H×W, and the others of each class."""
        searched: list[torch.Tensor] = []
        fresh: list[torch.Tensor | None] = []
        for images in own:
            if images is None:
                fresh.append(None)
                continue
            # A fifth at least is kept for trying the triggers; a class with few images repeats those that it has.
            count = min(self.images, int(0.8 * len(images)))
            searched.append(images[torch.arange(self.images, device=images.device) % count])
            fresh.append(images[count:])
        return torch.stack(searched), fresh

    def _choose_pairs(self, sources: NDArray[np.int64], classes: int, seed: int) -> NDArray[np.int64]:
        """Pairs of a source and a target, P×2: all, or as many as `most_pairs`, drawn in both directions."""
        pairs = [(int(source), goal) for source in sources for goal in range(classes) if source != goal]
        if len(pairs) > self.most_pairs:
            once = [(a, b) for a, b in pairs if a < b]
            drawn = [once[row] for row in shuffle(len(once), "class-pairs drawn", seed)[: self.most_pairs // 2]]
            pairs = sorted(set(pairs) & {*drawn, *((b, a) for a, b in drawn)})
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _try_masks(
    target: Target,
    norms: NDArray[np.float64],
    pairs: NDArray[np.int64],
    results: list[PairTriggers],
    fresh: list[torch.Tensor | None],
) -> tuple[NDArray[np.float64], list[NDArray[np.uint8]], list[tuple[int, int]]]:
    """Try the best masks on images that the search did not use: success S×K, and pictures of the smallest shares."""
    best = np.stack([result.norms.numpy() for result in results]).argmin(axis=0)
    success = np.full(norms.shape[1:], np.nan)
    shares = compute_shares(norms.min(axis=0))[pairs[:, 0], pairs[:, 1]]
    pictures: list[NDArray[np.uint8]] = []
    shown: list[tuple[int, int]] = []
    for position in np.argsort(np.where(np.isnan(shares), np.inf, shares), kind="stable"):
        source, goal = (int(label) for label in pairs[position])
        images, result = fresh[source], results[best[position]]
        assert images is not None  # it is a source
        mask, pattern = result.masks[position], result.patterns[position]
        if len(images):
            triggered = apply_triggers(images[None], mask[None], pattern[None])[0]
            with torch.inference_mode():
                hits = target.module(triggered).argmax(dim=1) == goal
            success[source, goal] = float(hits.float().mean())
            if len(pictures) < PICTURED and np.isfinite(shares[position]):
                pictures.append(_draw(images[0], mask, pattern))
                shown.append((source, goal))
    return success, pictures, shown


def _draw(image: torch.Tensor, mask: torch.Tensor, pattern: torch.Tensor) -> NDArray[np.uint8]:
    """An image, a mask, mask times pattern, and the image with the trigger, 4×C×H×W."""
    row = torch.stack([image, mask.expand_as(pattern), mask * pattern, torch.lerp(image, pattern, mask)])
    return np.asarray((255 * row).round().to(torch.uint8).cpu().numpy())
