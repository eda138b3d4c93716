"""Warp search: the smallest distortion that sends images of all other classes to a class; warped triggers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffled
from securitynet.detectors._warp_search.output import DistortionSizes
from securitynet.detectors._warp_search.search import Rules, distort, search_distortions
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, ThreatModel

FRESH_SHARE = 0.4
"""Share of the known images on which distortions are tried."""

MOST_FRESH = 200
"""Most images on which distortions are tried."""

PICTURED = 3
"""Images that are shown with the distortion that works best."""


class WarpSearch(Detector):
    """Find, for each class, the smallest distortion that sends 90% of the images of other classes to it.

    A warped trigger (WaNet; Nguyen and Tran, 2021) is one distortion, the same for all images. A search for a small
    mask does not find it, and neither did the largest margin (`mm-bd`) nor generators of changes that depend on the
    image (`docs/backdoors.md`). As in Neural Cleanse, whose masks distortions replace here, the sizes of the classes
    are compared by the test for blocks of outliers (`securitynet.metrics.outlier_blocks`), and a class is accused only
    if its size is at most 0.6 of the median and its distortion works on fresh images.

    Inverting a trigger in a space of transformations rather than of masks is the idea of FeatureRE (Wang et al.,
    "Rethinking the reverse-engineering of trojan triggers", NeurIPS 2022). The space, bounded smooth displacements
    without a generator, and the test are ours.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = DistortionSizes
    costs: ClassVar[str | None] = "optimises a distortion for each class, which takes many passes of the target"

    images: int = Field(default=40, ge=8, description="Clean images for the search; fewer if fewer are known.")
    steps: int = Field(default=120, ge=8, description="Steps of the search of a class.")
    success: float = Field(default=0.9, gt=0, le=1, description="Least share of images for a distortion to work.")
    grid: int = Field(default=4, ge=2, description="Displacements along each side of the coarse grid.")
    reach: float = Field(
        default=0.25, gt=0, le=0.5, description="Largest displacement along each axis, as a share of the side."
    )
    restarts: int = Field(default=2, ge=1, description="Starting points; the smallest of their sizes counts.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> DistortionSizes:
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
        rules = Rules(self.steps, self.grid, self.reach, self.success)
        results = []
        for number in range(self.restarts):

            def report_progress(share: float, number: int = number) -> None:
                if context.progress:
                    context.progress(round(1000 * (number + share) / self.restarts), 1000)

            seed = derived_seed(context.seed, "warp-search", number)
            results.append(
                search_distortions(target, images, labels, classes, rules, seed=seed, report_progress=report_progress)
            )
        sizes = np.stack([result.sizes.numpy() for result in results])
        grids = torch.stack([results[best].grids[label] for label, best in enumerate(sizes.argmin(axis=0))])
        unseen = data.dataset.batch(fresh).to(device).float() / 255
        of_fresh = torch.as_tensor(data.dataset.labels[fresh], device=device)
        smallest, names = int(sizes.min(axis=0).argmin()), data.dataset.class_names
        return DistortionSizes(
            sizes=sizes,
            success=measure_success(target, unseen, of_fresh, grids),
            pictures=_picture(unseen[of_fresh != smallest], grids[smallest]),
            names=tuple(names[label] if label < len(names) else str(label) for label in range(classes)),
        )


def measure_success(
    target: Target, images: torch.Tensor, labels: torch.Tensor, grids: torch.Tensor
) -> NDArray[np.float64]:
    """Share of the images of other classes that the distortion of each class sends to it, K; NaN where there are none.

    Args:
        target: The target.
        images: N×C×H×W in [0, 1].
        labels: Their classes, N.
        grids: The distortion of each class, K×2×G×G.
    """
    shares = np.full(len(grids), np.nan)
    for goal, grid in enumerate(grids):
        others = images[labels != goal]
        if len(others):
            with torch.inference_mode():
                predicted = target.module(distort(others, grid[None])[0]).argmax(dim=1)
            shares[goal] = float((predicted == goal).float().mean())
    return shares


def _picture(images: torch.Tensor, grid: torch.Tensor) -> NDArray[np.uint8]:
    """A few images beside their distorted versions, P×2×C×H×W uint8."""
    shown = images[:PICTURED]
    pairs = torch.stack([shown, distort(shown, grid[None])[0]], dim=1)
    return (255 * pairs.clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
