"""Warp search: one distortion that sends the images of all other classes to a class; a warped trigger is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffled
from securitynet.detectors._class_statistics.output import UNDECIDED, ClassStatistics, make_exact
from securitynet.detectors._warp_search.search import Rules, distort, search_distortions
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Gallery, Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.high_outliers import HighOutlier
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, Measurement, ThreatModel

LEAST_SUCCESS = 0.5
"""Least success of a distortion on fresh images with which its class is accused."""

FRESH_SHARE = 0.4
"""Share of the known images on which distortions are tried."""

MOST_FRESH = 200
"""Most images on which distortions are tried."""

PICTURED = 3
"""Images that are shown with the distortion that works best."""


@dataclass(frozen=True, eq=False)
class DistortionSuccess(ClassStatistics):
    """How well one distortion turns images of other classes into each class.

    Attributes:
        values: Log-odds of the success on fresh images, 1×R×K.
        success: Share of fresh images of other classes that become the class, R×K.
        pictures: Images beside their distorted versions, for the class with the largest success, P×2×C×H×W uint8.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value", "suspect-label")
    blind_spot: ClassVar[str] = (
        "A trigger that is no distortion, or a distortion that differs from image to image, can go unseen, and so can "
        "one with many targets."
    )

    success: NDArray[np.float64]
    pictures: NDArray[np.uint8]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), "success": self.success, "pictures": self.pictures}

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> DistortionSuccess:
        shared = ClassStatistics.from_arrays(arrays)
        return cls(shared.values, shared.titles, shared.names, arrays["success"], arrays["pictures"])

    @override
    def decide(self, row: int, outlier: HighOutlier, low: float, high: float) -> tuple[int, str]:
        rank, sentence = super().decide(row, outlier, low, high)
        success = float(self.success[:, outlier.position].max())
        if rank > UNDECIDED and success < LEAST_SUCCESS:
            return UNDECIDED, (
                f"Undecided: class {self.names[outlier.position]} is reached more easily by a distortion than the "
                f"others, but only from {success:.0%} of fresh images."
            )
        return rank, sentence

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        measured = super().measurements(level=level, fprs=fprs, seed=seed)
        best = self.success.max(axis=0)
        note = f"Largest success of a distortion on fresh images; it leads to class {self.names[int(best.argmax())]}."
        return [*measured, make_exact("fresh-success", float(best.max()), best.size, level, note)]

    @override
    def galleries(self) -> list[Gallery]:
        if not len(self.pictures):
            return []
        label = self.names[int(self.success.max(axis=0).argmax())]
        return [
            Gallery(
                title=f"The distortion that leads to class {label}",
                caption="Found by the search; that of a backdoor may differ from it.",
                images=self.pictures,
                rows=tuple(f"Image {number + 1}" for number in range(len(self.pictures))),
                columns=("Image", "Distorted"),
            )
        ]


class WarpSearch(Detector):
    """Find, for each class, one distortion that sends as many images of other classes to it as possible.

    A warped trigger (WaNet; Nguyen and Tran, 2021) is one distortion for all images. Searches for a small mask do not
    find it, and neither the largest margin (`mm-bd`) nor generators of image-dependent changes showed it on small
    networks (`docs/backdoors.md`). The distortions searched are smooth and bounded. Each is tried on images that the
    search did not use, and the log-odds of its success are compared between the classes by Grubbs' test
    (`securitynet.metrics.high_outliers`). A class is accused only if its distortion works on half of the fresh images.

    The idea of inverting a trigger in a space of transformations rather than of pixels is that of FeatureRE (Wang et
    al., "Rethinking the reverse-engineering of trojan triggers", NeurIPS 2022); the space, bounded smooth
    displacements without a generator, and the test are ours.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = DistortionSuccess
    costs: ClassVar[str | None] = "optimises a distortion for each class, which takes many passes of the target"

    images: int = Field(default=200, ge=8, description="Clean images for the search; fewer if fewer are known.")
    batch: int = Field(default=30, ge=1, description="Images in a step.")
    steps: int = Field(default=80, ge=1, description="Steps of the search of a class.")
    grid: int = Field(default=4, ge=2, description="Displacements along each side of the coarse grid.")
    reach: float = Field(
        default=0.25, gt=0, le=0.5, description="Largest displacement along each axis, as a share of the side."
    )
    restarts: int = Field(default=2, ge=1, description="Starting points; the best of them counts for each class.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> DistortionSuccess:
        known = data.splits.known_non_members
        if len(known) < 2 or data.dataset.images is None:
            raise ConfigurationError(
                "This search needs clean images that the model was not trained on; none are known.",
                hint="Use a split with known non-members (--known).",
            )
        ordered = known[shuffled(len(known), "warp-search", context.seed)]
        fresh_count = min(MOST_FRESH, max(1, int(FRESH_SHARE * len(ordered))))
        device = target.backend.device
        chosen, fresh = ordered[fresh_count:][: self.images], ordered[:fresh_count]
        images = data.dataset.batch(chosen).to(device).float() / 255
        labels = torch.as_tensor(data.dataset.labels[chosen], device=device)
        with torch.inference_mode():
            classes = int(target.module(images[:1]).shape[1])
        if classes < 2:
            raise ConfigurationError(f"{target.reference} has {classes} class, so no trigger can change its output.")
        rules = Rules(self.steps, self.batch, self.grid, self.reach)
        grids = []
        for number in range(self.restarts):

            def report_progress(share: float, number: int = number) -> None:
                if context.progress:
                    context.progress(round(1000 * (number + share) / self.restarts), 1000)

            seed = derived_seed(context.seed, "warp-search", number)
            grids.append(
                search_distortions(target, images, labels, classes, rules, seed=seed, report_progress=report_progress)
            )
        unseen = data.dataset.batch(fresh).to(device).float() / 255
        of_fresh = torch.as_tensor(data.dataset.labels[fresh], device=device)
        hits, totals = zip(*(count_hits(target, unseen, of_fresh, own) for own in grids), strict=True)
        counted, tried = np.stack(hits), np.stack(totals)
        best = np.unravel_index(int((counted / np.maximum(tried, 1)).argmax()), counted.shape)
        names = data.dataset.class_names
        return DistortionSuccess(
            values=compute_log_odds(counted, tried)[None],
            titles=("success of a distortion",),
            names=tuple(names[label] if label < len(names) else str(label) for label in range(classes)),
            success=counted / np.maximum(tried, 1),
            pictures=_picture(unseen[of_fresh != int(best[1])], grids[int(best[0])][int(best[1])]),
        )


def count_hits(
    target: Target, images: torch.Tensor, labels: torch.Tensor, grids: torch.Tensor
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many images of other classes the distortion of each class sends to it, and how many there are: K and K.

    Args:
        target: The target.
        images: N×C×H×W in [0, 1].
        labels: Their classes, N.
        grids: The distortion of each class, K×2×G×G.
    """
    hits, totals = [], []
    for goal, grid in enumerate(grids):
        others = images[labels != goal]
        with torch.inference_mode():
            predicted = target.module(distort(others, grid[None])[0]).argmax(dim=1) if len(others) else labels[:0]
        hits.append(int((predicted == goal).sum()))
        totals.append(len(others))
    return np.array(hits, dtype=np.int64), np.array(totals, dtype=np.int64)


def compute_log_odds(hits: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-odds of shares, finite also for 0 and 1 because half a hit and half a miss are added (Haldane, 1956)."""
    odds: NDArray[np.float64] = np.log((hits + 0.5) / (totals - hits + 0.5))
    return odds


def _picture(images: torch.Tensor, grid: torch.Tensor) -> NDArray[np.uint8]:
    """A few images beside their distorted versions, P×2×C×H×W uint8."""
    shown = images[:PICTURED]
    pairs = torch.stack([shown, distort(shown, grid[None])[0]], dim=1)
    return (255 * pairs.clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
