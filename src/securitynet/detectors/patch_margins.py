"""Patch margins: the largest margin that a square patch can give to each class, and where; for large patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._boxes import Box, list_boxes, put_patches, take_patches
from securitynet.detectors._class_statistics.output import SUSPICIOUS, UNDECIDED, ClassStatistics, show_p_value
from securitynet.detectors._class_statistics.spread import MOST_SPREAD, measure_spread
from securitynet.detectors.base import Detector, list_clean_images
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.high_outliers import HighOutlier
from securitynet.models.targets.input_gradients import InputGradients, compute_cross_entropy, compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

MOST_NUMBERS = 1 << 24
"""Most numbers in the images that carry patches at once: 64 MiB."""

WORKS = 0.5
"""Least share of the images that the patch of an accused class sends to it."""

FAR = 1.5
"""Least ratio of the lead of an accused class to the largest lead of the others."""


@dataclass(frozen=True, eq=False)
class ScaledMargins(ClassStatistics):
    """The largest margin that a patch gives to each class, in standard deviations on clean images: 1×1×K.

    A network of which patches reach fewer than half of the classes, such as one at chance, gets no verdict. A class
    with an outstanding margin is not accused if the patch often fails, or if it works wherever it lies.

    Attributes:
        margins: Largest mean margin of each class at each position, in logits, K×P.
        success: Share of the images that the same patch sends to the class, K×P.
        boxes: Top, left and side of each position, P×3.
    """

    blind_spot: ClassVar[str] = (
        "A trigger that covers the image or moves over it, a backdoor with several targets (up to all-to-all), or "
        "one that needs an image of one class can go unseen."
    )

    margins: NDArray[np.float64]
    success: NDArray[np.float64]
    boxes: NDArray[np.int64]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), "margins": self.margins, "success": self.success, "boxes": self.boxes}

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ScaledMargins:
        titles, names = (tuple(str(text) for text in arrays[key]) for key in ("titles", "names"))
        return cls(arrays["values"], titles, names, arrays["margins"], arrays["success"], arrays["boxes"])

    @override
    def decide(self, row: int, outlier: HighOutlier, low: float, high: float) -> tuple[int, str]:
        reached = int((self.success.max(axis=1) > 0).sum())
        if 2 * reached < len(self.names):
            return UNDECIDED, f"Undecided: patches reach {reached} of {len(self.names)} classes, too few to compare."
        rank, sentence = super().decide(row, outlier, low, high)
        if rank < SUSPICIOUS:
            return rank, sentence
        label, leads = outlier.position, compute_leads(self.margins)
        place = int(leads[label].argmax())
        works, doubt = float(self.success[label, place]), None
        if works < WORKS:
            doubt = f"the patch works on {works:.0%} of the images only"
        elif leads[label].max() < FAR * np.delete(leads.max(axis=1), label).max():
            doubt = "no position of the patch stands out, as that of a trigger would"
        if doubt is not None:
            name, shown = self.names[label], show_p_value(outlier.p_value)
            return UNDECIDED, f"Undecided: class {name} has a far larger {self.titles[row]} ({shown}), but {doubt}."
        top, left, side = self.boxes[place].tolist()
        return rank, (
            f"{sentence} The patch covers rows {top} to {top + side - 1} and columns {left} to {left + side - 1}, and "
            f"works on {works:.0%} of the images of other classes."
        )


class PatchMargins(Detector):
    """Optimise a square patch for each class and position, and compare the margins of the classes.

    A patch that covers an eighth of the image sends images to any class of a clean network too, so its success tells no
    backdoor, and a search for the smallest trigger misses backdoors whose trigger is that large. But a network that was
    trained on a trigger is far surer of it. The largest margin of each class, in standard deviations of the margin on
    clean images, is tested by Grubbs' test (`securitynet.metrics.high_outliers`). Without that scale, classes of which
    the network is always surer would hide the others.

    A trigger works in its own place, where a clean network gives much the same margin wherever the patch lies. So a
    class is accused only if its margin at one position leads those at others by far, compared with what the same
    position does for other classes (`compute_leads`). A class that was more frequent in training has large margins
    everywhere, and is not accused. A smaller trigger lies inside one of the squares and is noticed likewise.

    The images are clean records of other classes that the model was not trained on. The ascent takes steps whose mean
    absolute change of a pixel falls from ``step`` to 0, projected onto [0, 1], as in `securitynet.detectors.mm_bd`.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = ScaledMargins
    costs: ClassVar[str | None] = "optimises patches for each class and position, which takes thousands of passes"

    images: int = Field(default=16, ge=1, description="Clean images of other classes for each class; fewer if so few.")
    share: float = Field(default=0.375, gt=0, lt=1, description="Side of the patch, as a share of the shorter side.")
    positions: int = Field(default=5, ge=2, description="Positions along each side, evenly spaced.")
    steps: int = Field(default=15, ge=1, description="Steps of an ascent.")
    step: float = Field(
        default=0.2, gt=0, le=1, description="Mean absolute change of a pixel in the first step; it falls to 0."
    )

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> ScaledMargins:
        known = list_clean_images(data)
        ordered = known[shuffle(len(known), "patch-margins", context.seed)]
        labels = data.dataset.labels[ordered]
        with torch.inference_mode():
            outputs = target.module(data.dataset.batch(ordered[:1]).to(target.backend.device).float() / 255)
        classes = int(outputs.shape[1])
        chosen = [ordered[labels != label][: self.images] for label in range(classes)]
        if not all(map(len, chosen)):
            raise ConfigurationError(
                "Clean images of at least two classes are needed.", hint="Give images of more classes (--known)."
            )
        boxes = list_boxes(tuple(data.dataset.image_shape[1:]), self.share, self.positions)
        margins, success = np.empty((2, classes, len(boxes)))
        gradients = InputGradients(target, loss=compute_cross_entropy)
        for label, rows in enumerate(chosen):
            images = data.dataset.batch(rows).to(target.backend.device).float() / 255
            random = make_generator(context.seed, "patch-margins", label)
            margins[label], success[label] = self.search(gradients, images, label, boxes, random)
            if context.progress:
                context.progress(label + 1, classes)
        scaled = margins.max(axis=1) / measure_spread(target, data.dataset.batch(ordered[:MOST_SPREAD]))
        names = data.dataset.class_names
        shown = tuple(names[label] if label < len(names) else str(label) for label in range(classes))
        title = "margin by a patch (in standard deviations on clean images)"
        return ScaledMargins(scaled[None, None], (title,), shown, margins, success, np.array(boxes))

    def search(
        self,
        gradients: InputGradients,
        images: torch.Tensor,
        label: int,
        boxes: list[Box],
        random: torch.Generator | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Optimise a patch at each position for the mean margin of a class over the images.

        Args:
            gradients: Of the cross-entropy of the target.
            images: N×C×H×W in [0, 1], on the target's device.
            label: The class.
            boxes: The P positions, all with one side.
            random: Of the patches to start from, on the CPU.

        Returns:
            The largest mean margins, in logits, and the shares of the images that these patches send to the class, P.
        """
        block = max(1, MOST_NUMBERS // images.numel())
        side, channels = boxes[0][2], images.shape[1]
        patches = torch.rand((len(boxes), channels, side, side), generator=random).to(images.device)
        goals = torch.full((block * len(images),), label, device=images.device)
        margins, success = [], []
        for first in range(0, len(boxes), block):
            own, places = patches[first : first + block], boxes[first : first + block]
            carriers = images.repeat(len(places), 1, 1, 1, 1)
            best = torch.full((len(places),), -torch.inf, device=images.device)
            share = torch.zeros(len(places), device=images.device)
            for number in range(self.steps + 1):
                put_patches(carriers, own, places)
                computed = gradients(carriers.flatten(0, 1), goals[: len(places) * len(images)])
                margin = -compute_margin_loss(computed.logits, goals[: len(places) * len(images)])
                margin = margin.view(len(places), -1)
                better = margin.mean(dim=1) > best
                best = torch.where(better, margin.mean(dim=1), best)
                share = torch.where(better, (margin > 0).float().mean(dim=1), share)
                summed = computed.gradients.view(carriers.shape).sum(dim=1)
                inside = take_patches(summed, places)
                mean = inside.abs().mean(dim=(1, 2, 3), keepdim=True)
                size = self.step * (1 - number / self.steps)
                own = (own - size * inside / mean.clamp_min(1e-20)).clamp_(0, 1)
            margins.append(best.double().cpu())
            success.append(share.double().cpu())
        return torch.cat(margins).numpy(), torch.cat(success).numpy()


def compute_leads(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the margin of each class at each position leads what class and position alone explain, K×P.

    The median over positions is taken from each class, then the median over classes from each position: one sweep of
    Tukey's median polish. Medians, because a trigger raises the margins at neighbouring positions, too.

    Args:
        margins: K×P.
    """
    own = margins - np.median(margins, axis=1, keepdims=True)
    return np.asarray(own - np.median(own, axis=0))
