"""STRIP: an image whose prediction survives any overlay carries a trigger."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from securitynet.detectors._filters import InputFilter
from securitynet.detectors._fitted_filter import CleanImages, FittedFilter, check_enough
from securitynet.detectors._pieces import examine_in_pieces
from securitynet.detectors._queries import Arrays, QueryClient, Screen, bound_margin
from securitynet.detectors._strip.both import FittedBoth
from securitynet.detectors._strip.early_stop import DEVIATIONS, FEWEST_KNOWN, EarlyStopPredictor
from securitynet.metrics import filtering
from securitynet.models.targets.signals import Progress
from securitynet.randomness import derive_seed

FEWEST_TUNING = 10
"""Smallest number of clean images for a threshold."""

MOST_POOLED = 2000
"""Largest number of clean images that overlays are drawn from."""

PRIOR = 4
"""Weight of the overall mean in the estimates of `FittedStrip._rank`, as a number of images."""

COMPARED = 64
"""Number of clean images that are queried in both precisions."""

SHOWN = 4
"""Number of superpositions in the pictures of an image."""


class Strip(InputFilter):
    """Stops an image if the posteriors of its superpositions with clean images have a low mean entropy.

    Gao et al., "STRIP: a defence against trojan attacks on deep neural networks" (2019), sections 4 and 5; SecurityNet,
    section 3.3. The entropy is over the classes, in bits, averaged over the overlays (equations 3 and 4). Its negative
    is the score.

    Attributes:
        overlays: Number of clean images to overlay on each image: 10 in SecurityNet, 100 in the original.
        mix: ``add``: pixel values are added and clipped at white, as in the original. ``blend``: a weighted mean.
            ``both``: an image is stopped if either stops it, each at half of the false rejection rate, with twice the
            queries. Adding overwrites warped and faint triggers, and blending weakens small ones.
        weight: Weight of the judged image in a blend.
        false_rejection_rate: Share of clean images that may be stopped, for which the threshold is chosen.
        threshold: How the threshold is chosen; see `securitynet.metrics.filtering.choose_low_threshold`.
        calibration: Largest number of clean images, besides those judged, from which the threshold is chosen.
        stop_early: ``certain`` (or true): stop querying an image as soon as its verdict is certain. The verdicts are
            the same with a fraction of the queries, but there is no AUC. ``likely``: also let an image pass if the
            overlays so far predict that it will, by a margin measured on the clean images of the threshold; such a
            prediction may miss an image, but never stops one. ``no`` (or false): use all overlays.
        screen: ``bf16``: with ``stop_early``, query the network in bf16, and in its own precision only for images whose
            mean entropy is closer to the threshold than a bound on the difference between the precisions, measured on
            clean images. For local networks only.
            ``auto``: where bf16 is faster, see `securitynet.devices.uses_bfloat16`.
    """

    costs: ClassVar[str | None] = "queries the target with many superpositions of each of thousands of images"

    overlays: int = Field(default=10, ge=1, description="Overlays per image (original: 100).")
    mix: Literal["add", "blend", "both"] = Field(default="both", description="add, as in the original, blend, or both.")
    weight: float = Field(default=0.5, gt=0, lt=1, description="Weight of the judged image in a blend.")
    false_rejection_rate: float = Field(
        default=0.05, gt=0, lt=1, description="Share of clean images that may be stopped."
    )
    threshold: filtering.Fit = Field(default="auto", description="From a normal fit, a quantile, or auto.")
    calibration: int = Field(
        default=2000, ge=FEWEST_TUNING, description="Largest number of clean images for the threshold."
    )
    stop_early: bool | Literal["likely"] = Field(
        default=False,
        description="no; certain: stop once the verdict is certain; likely: also pass images by prediction.",
    )
    screen: Screen = Field(
        default="none",
        description="With stop_early, query in bf16 first, and in full precision "
        "only in doubt; auto: where bf16 is faster.",
    )

    @field_validator("stop_early", mode="before")
    @classmethod
    def _as_words(cls, value: object) -> object:
        # Stored as true and false, as before there was a third choice, so that ids of existing trials do not change.
        return {"no": False, "certain": True}.get(value, value) if isinstance(value, str) else value

    @property
    @override
    def tuning_images(self) -> int:
        return self.calibration

    @property
    @override
    def mixing_images(self) -> int:
        return MOST_POOLED

    @model_validator(mode="after")
    def _screening_gives_verdicts(self) -> Self:
        if self.screen != "none" and not self.stop_early:
            raise ValueError("screen works with stop_early only: it gives verdicts, and no scores that could be ranked")
        return self

    @override
    def fitted(
        self,
        client: QueryClient,
        clean: CleanImages,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedFilter:
        check_enough(clean.tuning, FEWEST_TUNING, "The threshold of STRIP")
        check_enough(clean.mixing, 1, "STRIP")
        report_progress = progress or (lambda done, total: None)
        if self.mix == "both":
            rate = self.false_rejection_rate
            return FittedBoth(
                {
                    mix: self.model_copy(update={"mix": mix, "false_rejection_rate": rate / 2}).fitted(
                        client, clean, seed, None if folder is None else folder / mix, progress if not number else None
                    )
                    for number, mix in enumerate(("add", "blend"))
                },
                rate,
            )
        return FittedStrip(self, client, clean.mixing, seed).calibrated(clean.tuning, folder, report_progress)


class FittedStrip(FittedFilter):
    """STRIP in front of a target.

    Args:
        settings: Configuration of the detector.
        client: Client that queries the target.
        pool: Clean images for overlays, M×C×H×W uint8.
        seed: Seed of the choice of overlays.
    """

    columns = ("image", *(f"overlay {number}" for number in range(1, SHOWN + 1)))

    def __init__(self, settings: Strip, client: QueryClient, pool: torch.Tensor, seed: int) -> None:
        self.settings = settings
        self.client = client
        self.pool = pool
        self.seed = seed
        self.threshold = math.inf  # nothing is stopped before calibration
        self.expected = torch.zeros(len(pool), dtype=torch.float64)
        self.margin: float | None = None
        self.predictor: EarlyStopPredictor | None = None
        self.piece = 256 if settings.stop_early else 64  # batches shrink as images drop out

    def calibrated(self, tuning: torch.Tensor, folder: Path | None, progress: Progress) -> FittedStrip:
        """Choose the threshold and the order of the overlays.

        Args:
            tuning: Clean images, N×C×H×W uint8.
            folder: Folder of completed pieces; None stores nothing.
            progress: Called with the number of images done and the total.
        """
        rows = np.arange(len(tuning), dtype=np.int64)

        def measured(which: np.ndarray, half: bool) -> np.ndarray:
            """Return the entropies of these images with each of their overlays, n×K."""
            name = f"calibration{' bf16' if half else ''} of {len(which)}"
            pieces = examine_in_pieces(
                lambda images, numbers: {"entropies": self._all(images, self._picked(numbers, "calibration"), half)},
                tuning[torch.from_numpy(which)],
                name,
                self.client,
                folder,
                progress if len(which) == len(tuning) else lambda done, total: None,
                rows=which,
            )
            return np.asarray(pieces["entropies"])

        screened = self.client.screens(self.settings.screen) and self.client.half is not None
        # A quantile needs exact values near itself only; a normal fit needs all.
        coarse = screened and self.settings.threshold == "quantile"
        entropies = measured(rows, half=coarse)
        means = entropies.mean(axis=1)
        self._choose(means)
        if screened:
            near = np.sort(np.argsort(np.abs(means + self.threshold), kind="stable")[:COMPARED])
            others = measured(near, half=not coarse).mean(axis=1)
            self.margin = bound_margin(others - means[near])
            if coarse:
                means[near] = others
                doubtful = np.abs(means + self.threshold) <= 2 * self.margin
                doubtful[near] = False
                if doubtful.any():
                    means[doubtful] = measured(np.flatnonzero(doubtful), half=False).mean(axis=1)
                self._choose(means)
            self.notes = (*self.notes, f"Decided in bf16 beyond {self.margin:.2g} bits of the threshold, else in fp32.")
        elif self.client.screens(self.settings.screen):
            self.notes = (*self.notes, "The target cannot be queried in bf16.")
        picks = self._picked(rows, "calibration").numpy()
        self._rank(picks, entropies)
        if self.settings.stop_early == "likely":
            self._foresee(picks, entropies)
        return self

    def _foresee(self, picks: np.ndarray, entropies: np.ndarray) -> None:
        """Measure how well the first overlays predict the others, if there are enough images."""
        # The order of an image's overlays must not depend on its own entropies, as for incoming images.
        counts = np.bincount(picks.ravel(), minlength=len(self.pool))
        sums = np.bincount(picks.ravel(), entropies.ravel(), len(self.pool))
        others = (sums[picks] - entropies + PRIOR * entropies.mean()) / (counts[picks] - 1 + PRIOR)
        ordered = np.take_along_axis(entropies, np.argsort(-others, axis=1, kind="stable"), axis=1)
        self.predictor = EarlyStopPredictor.measured(ordered)
        if self.predictor is None:
            why = "too few" if len(ordered) < FEWEST_KNOWN else "too few overlays, or too much alike"
            note = f"Nothing could be predicted ({len(ordered)} clean images, {why}): passed when certain only."
            self.notes = (*self.notes, note)
            return
        numbers = torch.arange(1, ordered.shape[1] + 1)
        seen = torch.from_numpy(ordered).cumsum(dim=1)
        bound = -self.threshold * ordered.shape[1]
        below = seen[:, -1] < bound
        missed = below & (self.predictor.totals(seen, numbers)[1] >= bound).any(dim=1)
        half = ordered.shape[1] // 2
        margin = float(self.predictor.margins[half])
        at = f" ({margin:.2g} in cube roots of bits after {half} overlays)" if math.isfinite(margin) else ""
        self.notes = (
            *self.notes,
            "Images also passed by prediction from the first overlays; stopped images were certain. The margin is "
            f"{DEVIATIONS:g} deviations or more of {len(ordered):,} clean images{at}; of the {int(below.sum())} of "
            f"them below the threshold it let {int(missed.sum())} pass.",
        )

    def _choose(self, entropies: np.ndarray) -> None:
        """Choose the threshold from the mean entropies of clean images, in bits."""
        rate = self.settings.false_rejection_rate
        bound = filtering.choose_low_threshold(entropies, rate, self.settings.threshold)
        self.threshold, self.nominal, self.calibration = -bound.value, rate, -entropies
        self.exact = not self.settings.stop_early
        if self.settings.threshold == "auto" and bound.fit == "quantile":
            self.notes = (
                f"A normal fit to the entropies of {len(entropies):,} clean images would stop nothing; the threshold "
                "is their own quantile.",
            )
        elif bound.value <= 0:
            self.notes = ("The threshold lies below an entropy of 0, so nothing can be stopped.",)

    def _rank(self, picks: np.ndarray, entropies: np.ndarray) -> None:
        """Estimate the mean entropy under each overlay, shrunk to the overall mean, which counts as `PRIOR` images."""
        sums = np.bincount(picks.ravel(), entropies.ravel(), len(self.pool))
        counts = np.bincount(picks.ravel(), minlength=len(self.pool))
        self.expected = torch.from_numpy((sums + PRIOR * entropies.mean()) / (counts + PRIOR))

    def examine(self, images: torch.Tensor, rows: np.ndarray, purpose: str) -> Arrays:
        """Compute scores, verdicts, and the number of superpositions of each image (stored as ``asked``).

        With ``stop_early``, scores are bounds and depend on the batch; verdicts do not. The score of an image that
        passes by prediction is the negative of the predicted mean.
        """
        picks = self._picked(rows, purpose)
        if not self.settings.stop_early:
            sums = torch.from_numpy(self._all(images, picks)).sum(dim=1)
            queries = torch.full((len(images),), self.settings.overlays)
        else:
            # The most informative overlays first.
            order = torch.sort(self.expected[picks], dim=1, descending=True, stable=True).indices
            sums, queries = self._until_sure(images, picks.gather(1, order))
        scores = -(sums / self.settings.overlays).numpy()
        return {"scores": scores, "flagged": scores > self.threshold, "asked": queries.numpy()}

    def _until_sure(self, images: torch.Tensor, picks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sums of entropies up to where the verdict is certain, N, and the numbers of superpositions, N."""
        if self.margin is None:
            sums, queries, _ = self._narrowed(images, picks, 0.0, half=False)
            return sums, queries
        sums, queries, doubtful = self._narrowed(images, picks, self.margin, half=True)
        if len(doubtful):
            exact, more, _ = self._narrowed(images[doubtful], picks[doubtful], 0.0, half=False, certain=True)
            sums[doubtful] = exact
            queries[doubtful] += more
        return sums, queries

    def _narrowed(
        self, images: torch.Tensor, picks: torch.Tensor, margin: float, *, half: bool, certain: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query until each mean is certain to lie more than a margin above or below the bound.

        Unless ``certain``, the queries of an image also end once its mean is predicted to lie above the bound; its sum
        is then the predicted one. The third result marks the images that remain undecided.
        """
        count, bound = self.settings.overlays, -self.threshold
        sums = torch.zeros(len(images), dtype=torch.float64)
        queries = torch.zeros(len(images), dtype=torch.int64)
        live, start = torch.arange(len(images)), 0
        while len(live) and start < count:
            chosen = picks[live, start : start + max(1, -(-self.client.fewest // len(live)))]
            seen = sums[live, None] + self._entropies(images, live, chosen, half).cumsum(dim=1)
            sums[live], passed = seen[:, -1], torch.zeros(len(live), dtype=torch.bool)
            queries[live] += chosen.shape[1]
            numbers = torch.arange(start + 1, start + chosen.shape[1] + 1)
            start += chosen.shape[1]
            if self.predictor is not None and not certain:
                # Checked after each overlay, also within a batch, because the size of a batch depends on other images.
                predicted, least = self.predictor.totals(seen, numbers)
                # The errors of the prediction and of the precision are independent.
                gaps = torch.hypot((predicted - least) / count, torch.tensor(margin, dtype=torch.float64))
                passing = predicted / count - gaps >= bound
                passed = passing.any(dim=1)
                sums[live] = sums[live].maximum(predicted.where(passing, 0.0).amax(dim=1))
            # Entropies are not negative, so a sum above the bound stays above; none exceeds that of equal posteriors.
            means = sums[live] / count
            rest = (count - start) / count * self._highest() if start < count else 0.0
            live = live[~(passed | (means >= bound + margin) | (means + rest < bound - margin))]
        return sums, queries, live

    def _highest(self) -> float:
        """Largest entropy in bits, plus a tolerance for rounding."""
        classes = self.client.target.num_classes
        if classes is None or self.client.target.head == "answers":  # an interface's need not sum to 1
            return math.inf
        return math.log2(classes) + 1e-4

    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return the image and its first superpositions."""
        picks = self._picks(row, purpose)[:SHOWN]
        mixed = self.mixed(image.expand(len(picks), *image.shape), self.pool[picks])
        if mixed.is_floating_point():
            mixed = (mixed * 255).round().to(torch.uint8)
        missing = image.new_zeros(SHOWN - len(picks), *image.shape)
        return torch.cat([image[None], mixed, missing])

    def mixed(self, images: torch.Tensor, overlays: torch.Tensor) -> torch.Tensor:
        """Superpose images: uint8 by addition, float32 in [0, 1] by blending; all N×C×H×W."""
        if self.settings.mix == "add":
            # uint8 addition wraps around, and then the sum is smaller than its parts; this avoids wider integers.
            total = images + overlays
            return total.masked_fill_(total < overlays, 255)
        return overlays.float().div_(255).lerp_(images.float().div_(255), self.settings.weight)

    def _all(self, images: torch.Tensor, picks: torch.Tensor, half: bool = False) -> np.ndarray:
        """Return the entropies of all superpositions in bits, N×K float64."""
        return self._entropies(images, torch.arange(len(images)), picks, half).numpy()

    def _entropies(self, images: torch.Tensor, live: torch.Tensor, picks: torch.Tensor, half: bool) -> torch.Tensor:
        """Return the entropies of superpositions in bits, in the shape of ``picks``, for the ``live`` images."""
        owners, chosen = live.repeat_interleave(picks.shape[1]), picks.flatten()
        entropies = []
        for part in torch.split(torch.arange(len(owners)), self.client.target.batch_size):
            mixed = self.mixed(images[owners[part]], self.pool[chosen[part]])
            entropies.append(torch.special.entr(self.client.posteriors(mixed, half=half).double()).sum(dim=1))
        return torch.cat(entropies).view(picks.shape) / math.log(2)

    def _picked(self, rows: np.ndarray, purpose: str) -> torch.Tensor:
        """Return the positions in the pool of the overlays of images, N×K."""
        return torch.stack([self._picks(row, purpose) for row in rows.tolist()])

    def _picks(self, row: int, purpose: str) -> torch.Tensor:
        """Choose images of the pool to overlay on an image, without repetition if there are enough."""
        stream = torch.Generator().manual_seed(derive_seed(self.seed, f"strip {purpose}", row))
        rounds = math.ceil(self.settings.overlays / len(self.pool))
        orders = [torch.randperm(len(self.pool), generator=stream) for _ in range(rounds)]
        return torch.cat(orders)[: self.settings.overlays]
