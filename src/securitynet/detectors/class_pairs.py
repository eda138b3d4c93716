"""Class pairs: the smallest trigger from each class to each other one; all-to-all and source-specific backdoors."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._class_pairs.output import PairNorms
from securitynet.detectors._class_pairs.search import (
    PairTriggers,
    apply_triggers,
    measure_distances,
    search_pairs,
)
from securitynet.detectors.base import Detector, list_clean_images
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.class_pairs import compute_shares
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_IMAGES = 4
"""Images of a class without which it is no source."""

MOST_FRESH = 16
"""Most images of a source class on which triggers are tried afterwards."""

PICTURED = 6
"""Pairs whose triggers are stored: those that are smallest compared with what the classes suggest."""


class ClassPairs(Detector):
    """Find, for each source class and each target class, the smallest trigger that turns images of the one into it.

    The search of Neural Cleanse (Wang et al., 2019, section V-A) on images of one class at a time, as in the search for
    source-conditional backdoors of K-Arm (Shen et al., "Backdoor scanning for deep neural networks through K-Arm
    optimization", 2021, section 4.3), without its bandit: all pairs are searched alike, because norms are then compared
    with one another (`securitynet.metrics.class_pairs`). A trigger that works on images of one class only, or that
    leads each class to another one, has a small norm for its pairs, and none for all images.

    The images are records that the defender knows and the model was not trained on, and that it classifies correctly.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = PairNorms
    version: ClassVar[int] = 2  # norms are explained by distances and, as far as it correlates, by the reverse pair
    costs: ClassVar[str | None] = "optimises a trigger for each pair of classes, which takes many passes of the target"

    images: int = Field(default=12, ge=FEWEST_IMAGES, description="Images of each source class; fewer if fewer known.")
    steps: int = Field(default=150, ge=8, description="Steps of the search of a pair.")
    success: float = Field(default=0.9, gt=0, le=1, description="Least share of images for a trigger to work.")
    restarts: int = Field(default=1, ge=1, description="Starting points; a pair's norm is the smallest of them.")
    most_pairs: int = Field(
        default=400, ge=20, description="With more pairs than this, as many are drawn at random, in both directions."
    )

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> PairNorms:
        images, fresh = self._choose_images(target, data, context.seed)
        with torch.inference_mode():
            classes = int(target.module(images[:1, 0]).shape[1])
        sources = np.array([source for source, own in enumerate(fresh) if own is not None], dtype=np.int64)
        pairs = self._choose_pairs(sources, classes, context.seed)
        # Where the images of a pair's source are among those of all sources.
        placed = torch.from_numpy(np.stack([np.searchsorted(sources, pairs[:, 0]), pairs[:, 1]], axis=1))
        results = []
        for number in range(self.restarts):

            def report_progress(share: float, number: int = number) -> None:
                if context.progress:
                    context.progress(round(1000 * (number + share) / self.restarts), 1000)

            results.append(
                search_pairs(
                    target,
                    images,
                    placed,
                    steps=self.steps,
                    success=self.success,
                    seed=derive_seed(context.seed, "class-pairs", number),
                    report_progress=report_progress,
                )
            )
        norms = np.full((self.restarts, len(fresh), classes), np.nan)
        norms[:, pairs[:, 0], pairs[:, 1]] = np.stack([result.norms.numpy() for result in results])
        distances = np.full(norms.shape[1:], np.nan)
        distances[pairs[:, 0], pairs[:, 1]] = measure_distances(target, images, placed).numpy()
        return _collect(target, data, norms, distances, pairs, results, fresh)

    def _choose_images(
        self, target: Target, data: TrialData, seed: int
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Images for the search, S×n×C×H×W in [0, 1], and others of each class; None for classes with too few."""
        known = list_clean_images(data)
        chosen: list[torch.Tensor] = []
        fresh: list[torch.Tensor | None] = []
        for label in range(data.dataset.num_classes):
            own = known[data.dataset.labels[known] == label]
            own = own[shuffle(len(own), "class-pairs", seed, label)[: 2 * (self.images + MOST_FRESH)]]
            images = data.dataset.batch(own).to(target.backend.device).float() / 255
            if len(own):
                with torch.inference_mode():
                    images = images[target.module(images).argmax(dim=1) == label]
            if len(images) < FEWEST_IMAGES:
                fresh.append(None)
                continue
            # A fifth at least is kept for trying the triggers; a class with few images repeats those that it has.
            count = min(self.images, int(0.8 * len(images)))
            chosen.append(images[torch.arange(self.images, device=images.device) % count])
            fresh.append(images[count:][:MOST_FRESH])
        if not chosen:
            raise ConfigurationError(
                f"No class has {FEWEST_IMAGES} known images that {target.reference} classifies correctly.",
                hint="Give more clean images (--known), and check the preprocessing (--normalize).",
            )
        return torch.stack(chosen), fresh

    def _choose_pairs(self, sources: NDArray[np.int64], classes: int, seed: int) -> NDArray[np.int64]:
        """Pairs of a source and a target, P×2: all, or as many as `most_pairs`, drawn in both directions."""
        pairs = [(int(source), goal) for source in sources for goal in range(classes) if source != goal]
        if len(pairs) > self.most_pairs:
            once = [(a, b) for a, b in pairs if a < b]
            drawn = [once[row] for row in shuffle(len(once), "class-pairs drawn", seed)[: self.most_pairs // 2]]
            pairs = sorted(set(pairs) & {*drawn, *((b, a) for a, b in drawn)})
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _collect(
    target: Target,
    data: TrialData,
    norms: NDArray[np.float64],
    distances: NDArray[np.float64],
    pairs: NDArray[np.int64],
    results: list[PairTriggers],
    fresh: list[torch.Tensor | None],
) -> PairNorms:
    """Try the best triggers on images that the search did not use, and keep the pictures of the most suspicious."""
    best = np.stack([result.norms.numpy() for result in results]).argmin(axis=0)
    success = np.full(norms.shape[1:], np.nan)
    shares = compute_shares(norms.min(axis=0), distances)[pairs[:, 0], pairs[:, 1]]
    pictures: list[NDArray[np.uint8]] = []
    shown: list[tuple[int, int]] = []
    order = np.argsort(np.where(np.isnan(shares), np.inf, shares), kind="stable")
    for position in order:
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
                row = torch.stack([images[0], mask.expand_as(pattern), mask * pattern, triggered[0]])
                pictures.append((255 * row).round().to(torch.uint8).cpu().numpy())
                shown.append((source, goal))
    names = data.dataset.class_names
    count = max(norms.shape[1:])
    return PairNorms(
        norms,
        success,
        distances,
        np.stack(pictures) if pictures else np.zeros((0, 4, 1, 1, 1), np.uint8),
        np.array(shown, dtype=np.int64).reshape(-1, 2),
        tuple(names[label] if label < len(names) else str(label) for label in range(count)),
    )
