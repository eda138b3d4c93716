"""STRIP: an image that keeps its prediction whatever is laid over it carries a trigger."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from securitynet.detectors._filters import CleanImages, Fitted, InputFilter, check_enough, in_pieces
from securitynet.detectors._questions import Arrays, Questions
from securitynet.metrics import filtering
from securitynet.models.signals import Progress
from securitynet.models.trainer.randomness import derived_seed

FEWEST_TUNING = 10
"""Clean images without which no threshold is chosen."""

MOST_POOLED = 2000
"""Clean images that overlays are drawn from, at most."""

ROUND = 2
"""Overlays that are asked about at once where questions stop early."""

SHOWN = 4
"""Superpositions in the pictures of an image."""


class Strip(InputFilter):
    """Stops an image if the posteriors of its superpositions with clean images have a low mean entropy.

    Gao et al., "STRIP: a defence against trojan attacks on deep neural networks" (2019), sections 4 and 5; SecurityNet,
    section 3.3. The entropy is over the classes, in bits, averaged over the overlays (equations 3 and 4). Its negative
    is the score.

    Attributes:
        overlays: Clean images that are laid over each image: 10 in SecurityNet, 100 in the original.
        mix: ``add``: pixel values are added and cut at white, as in the original. ``blend``: a weighted mean.
        weight: Of the judged image in a blend.
        false_rejection_rate: Share of clean images that may be stopped; the threshold is chosen for it.
        threshold: How; see `securitynet.metrics.filtering.low_threshold`.
        calibration: Clean images, beside those judged, from which the threshold is chosen, at most.
        stop_early: Stop asking about an image as soon as it is sure to pass. The verdicts are the same, with a fraction
            of the questions; there is no AUC then.
    """

    costs: ClassVar[str | None] = "asks the target about many superpositions of each of thousands of images"

    overlays: int = Field(default=10, ge=1, description="Clean images laid over each image (original: 100).")
    mix: Literal["add", "blend"] = Field(default="add", description="add, as in the original, or blend.")
    weight: float = Field(default=0.5, gt=0, lt=1, description="Of the judged image in a blend.")
    false_rejection_rate: float = Field(default=0.05, gt=0, lt=1, description="Share of clean images to be stopped.")
    threshold: filtering.Fit = Field(default="auto", description="From a normal fit, a quantile, or auto.")
    calibration: int = Field(default=2000, ge=FEWEST_TUNING, description="Clean images for the threshold, at most.")
    stop_early: bool = Field(default=False, description="Stop asking as soon as the verdict is sure.")

    @property
    def tuning_images(self) -> int:
        """See `InputFilter.tuning_images`."""
        return self.calibration

    @property
    def mixing_images(self) -> int:
        """See `InputFilter.mixing_images`."""
        return MOST_POOLED

    def fitted(
        self,
        questions: Questions,
        clean: CleanImages,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedStrip:
        """See `InputFilter.fitted`."""
        check_enough(clean.tuning, FEWEST_TUNING, "The threshold of STRIP")
        check_enough(clean.mixing, 1, "STRIP")
        fitted = FittedStrip(self, questions, clean.mixing, seed)
        told = progress or (lambda done, total: None)
        found = in_pieces(fitted, clean.tuning, "calibration", questions, folder, told)
        return fitted.with_threshold(-found["scores"])


class FittedStrip(Fitted):
    """STRIP in front of a target.

    Args:
        settings: How.
        questions: To the target.
        pool: Clean images to be laid over others, M×C×H×W uint8.
        seed: Decides which are laid over which.
    """

    columns = ("image", *(f"overlay {number}" for number in range(1, SHOWN + 1)))

    def __init__(self, settings: Strip, questions: Questions, pool: torch.Tensor, seed: int) -> None:
        self.settings = settings
        self.questions = questions
        self.pool = pool
        self.seed = seed
        self.threshold = math.inf  # until it is known nothing is stopped, and nothing is stopped early

    def with_threshold(self, entropies: np.ndarray) -> FittedStrip:
        """Choose the threshold from mean entropies of clean images, in bits."""
        rate = self.settings.false_rejection_rate
        bound = filtering.low_threshold(entropies, rate, self.settings.threshold)
        self.threshold, self.nominal, self.calibration = -bound.value, rate, -entropies
        self.exact = not self.settings.stop_early
        if self.settings.threshold == "auto" and bound.fit == "quantile":
            self.notes = (
                f"A normal fit to the entropies of {len(entropies):,} clean images would stop nothing; the threshold "
                "is their own quantile.",
            )
        elif bound.value <= 0:
            self.notes = ("The threshold lies below an entropy of 0, so nothing can be stopped.",)
        return self

    def examine(self, images: torch.Tensor, rows: np.ndarray, purpose: str) -> Arrays:
        """See `Fitted.examine`; ``asked`` is the number of superpositions of each image."""
        count = self.settings.overlays
        picks = torch.stack([self._picks(row, purpose) for row in rows.tolist()])
        sums = torch.zeros(len(images), dtype=torch.float64)
        asked = np.zeros(len(images), dtype=np.int64)
        early = self.settings.stop_early and math.isfinite(self.threshold)
        live = torch.arange(len(images))
        for start in range(0, count, ROUND if early else count):
            if early:  # entropies are not negative: once the sum is above the bound it stays there
                live = live[-(sums[live] / count) > self.threshold]
                if not len(live):
                    break
            chosen = picks[live, start : start + (ROUND if early else count)]
            sums[live] += self._entropies(images, live, chosen)
            asked[live.numpy()] += chosen.shape[1]
        scores = -(sums / count).numpy()
        return {"scores": scores, "flagged": scores > self.threshold, "asked": asked}

    def pictures(self, image: torch.Tensor, found: Arrays, row: int, purpose: str) -> torch.Tensor:
        """See `Fitted.pictures`: the image, and its first superpositions."""
        picks = self._picks(row, purpose)[:SHOWN]
        mixed = self.mixed(image.expand(len(picks), *image.shape), self.pool[picks])
        if mixed.is_floating_point():
            mixed = (mixed * 255).round().to(torch.uint8)
        missing = image.new_zeros(SHOWN - len(picks), *image.shape)
        return torch.cat([image[None], mixed, missing])

    def mixed(self, images: torch.Tensor, overlays: torch.Tensor) -> torch.Tensor:
        """Superpositions: uint8 by addition, float32 in [0, 1] by blending; all N×C×H×W."""
        if self.settings.mix == "add":
            # uint8 wraps around; where it did, the sum is smaller than its parts. That saves a pass in wider integers.
            total = images + overlays
            return total.masked_fill_(total < overlays, 255)
        return torch.lerp(overlays.float() / 255, images.float() / 255, self.settings.weight)

    def _entropies(self, images: torch.Tensor, live: torch.Tensor, picks: torch.Tensor) -> torch.Tensor:
        """Sum over the overlays of the entropy of each image's superposition in bits: for each of ``live``."""
        owners, chosen = live.repeat_interleave(picks.shape[1]), picks.flatten()
        found = []
        for part in torch.split(torch.arange(len(owners)), self.questions.target.batch_size):
            mixed = self.mixed(images[owners[part]], self.pool[chosen[part]])
            found.append(torch.special.entr(self.questions.posteriors(mixed).double()).sum(dim=1))
        return torch.cat(found).view(picks.shape).sum(dim=1) / math.log(2)

    def _picks(self, row: int, purpose: str) -> torch.Tensor:
        """Which images of the pool are laid over an image: different ones, as long as there are enough."""
        stream = torch.Generator().manual_seed(derived_seed(self.seed, f"strip {purpose}", row))
        rounds = math.ceil(self.settings.overlays / len(self.pool))
        orders = [torch.randperm(len(self.pool), generator=stream) for _ in range(rounds)]
        return torch.cat(orders)[: self.settings.overlays]
