"""MM-BD: the largest margin that any image can give to each class; a target class has a far larger one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._class_statistics.output import (
    SUSPICIOUS,
    UNDECIDED,
    ClassStatistics,
    find_in_all,
    show_p_value,
)
from securitynet.detectors._class_statistics.spread import MOST_SPREAD, measure_spread
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.backdoor_verdict import ALPHA
from securitynet.metrics.high_outliers import HighOutlier, compute_gamma_p_value, find_high_outlier
from securitynet.models.targets.input_gradients import InputGradients, compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, Direction, Measurement, ThreatModel

MOST_NUMBERS = 1 << 24
"""Most numbers in the images that are optimised at once: 64 MiB."""


@dataclass(frozen=True, eq=False)
class LargestMargins(ClassStatistics):
    """The largest margin that was reached for each class from each starting point, in logits: 1×R×K or 2×R×K.

    The second statistic, if there is one, is the same margin in standard deviations of the class's margin on clean
    images. A class is accused only if it stands out in both: without a backdoor, too, the margins of some classes vary
    more than those of others, for instance of one that was more frequent in training.

    A network that classifies no image as some class, such as one at chance, gets no verdict: its margins differ between
    classes whether or not there is a backdoor.
    """

    @override
    def find_outlier(self, statistics: NDArray[np.float64]) -> tuple[int, HighOutlier] | None:
        return find_in_all(statistics)

    @override
    def decide(self, row: int, outlier: HighOutlier, low: float, high: float) -> tuple[int, str]:
        never = np.flatnonzero(self.statistics[0] <= 0)
        if len(never):
            return UNDECIDED, (
                f"Undecided: no image was found that the network classifies as class {self.names[int(never[0])]}, so "
                "margins cannot be compared."
            )
        rank, sentence = super().decide(row, outlier, low, high)
        alone = find_high_outlier(self.statistics[0])
        if rank < SUSPICIOUS and alone is not None and alone.p_value <= ALPHA:
            return UNDECIDED, (
                f"Undecided: class {self.names[alone.position]} has a far larger {self.titles[0]} than the others "
                f"({show_p_value(alone.p_value)}), but not compared with the spread of its margin on clean images "
                f"({show_p_value(outlier.p_value)})."
            )
        return rank, sentence

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        measured = super().measurements(level=level, fprs=fprs, seed=seed)
        largest = self.statistics[0]
        value = compute_gamma_p_value(largest)
        note = "The test of MM-BD's paper; at 0.05 it rejects about a quarter of draws of its own null distribution."
        if value is None:
            note = "No gamma distribution fits: no image is classified as some class, or there are too few classes."
        measured.append(
            Measurement(
                name="gamma-p-value",
                value=value,
                low=value,
                high=value,
                level=level,
                n=len(largest),
                direction=Direction.HIGHER,
                method="gamma distribution fitted to the other classes",
                note=note,
            )
        )
        return measured


class MmBd(Detector):
    """Maximise, for each class, the margin of its logit over the largest other one, over all images in [0, 1].

    Wang, Xiang, Miller and Kesidis, "MM-BD: post-training detection of backdoor attacks with arbitrary backdoor pattern
    types using a maximum margin statistic" (IEEE S&P 2024), section IV. Training on poisoned records makes one class
    win by far on images with the trigger, whatever the trigger looks like, so this needs no small trigger. The paper
    uses no data. Where clean images that the model was not trained on are known, a class must also stand out by its
    margin in standard deviations of its margin on them.

    The largest margin is tested by Grubbs' test (`securitynet.metrics.high_outliers`), whose level does not depend on
    the scale of the logits; the paper's p-value is reported beside it. The ascent takes steps whose mean absolute
    change of a pixel falls from ``step`` to 0, projected onto [0, 1], where the authors' program takes steps
    proportional to the gradient, so that the result does not depend on the scale of the logits either.

    It cannot see a backdoor for which all classes are targets (all-to-all), since no class then stands out.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = LargestMargins
    version: ClassVar[int] = 2  # accuses only if the margin in standard deviations on clean images stands out as well
    costs: ClassVar[str | None] = "optimises images for each class, which takes thousands of passes of the target"

    starts: int = Field(default=30, ge=1, description="Random images from which each class's ascent starts.")
    steps: int = Field(default=100, ge=1, description="Steps of an ascent.")
    step: float = Field(
        default=0.1, gt=0, le=1, description="Mean absolute change of a pixel in the first step; it falls to 0."
    )

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> LargestMargins:
        shape = tuple(data.dataset.image_shape)
        with torch.inference_mode():
            outputs = target.module(torch.zeros((1, *shape), device=target.backend.device))
        classes = int(outputs.shape[1])
        if classes < 2:
            raise ConfigurationError(f"{target.reference} has {classes} class, so there is no margin.")

        def report_progress(share: float) -> None:
            if context.progress:
                context.progress(round(1000 * share), 1000)

        margins = self.maximise_margins(target, shape, classes, context.seed, report_progress)
        names = data.dataset.class_names
        shown = tuple(names[label] if label < len(names) else str(label) for label in range(classes))
        known = data.splits.known_non_members
        if not len(known) or data.dataset.images is None:
            return LargestMargins(margins[None], ("largest margin",), shown)
        chosen = np.sort(known[shuffle(len(known), "mm-bd", context.seed)[:MOST_SPREAD]])
        scaled = margins / measure_spread(target, data.dataset.batch(chosen))
        titles = ("largest margin", "largest margin (in standard deviations on clean images)")
        return LargestMargins(np.stack([margins, scaled]), titles, shown)

    def maximise_margins(
        self,
        target: Target,
        shape: tuple[int, ...],
        classes: int,
        seed: int = 0,
        report_progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.float64]:
        """Return the largest margins, ``starts`` × ``classes``, in logits.

        Args:
            target: The target, under white-box access.
            shape: Of its images, (C, H, W).
            classes: Its number of classes.
            seed: Of the starting points.
            report_progress: Called with the share of the work that is done, in [0, 1].
        """
        gradients = InputGradients(target, loss=compute_margin_loss)
        block = max(1, MOST_NUMBERS // (self.starts * int(np.prod(shape))))
        margins = []
        for first in range(0, classes, block):
            block_labels = range(first, min(classes, first + block))
            labels = torch.tensor(block_labels).repeat_interleave(self.starts)
            # Starting points depend on the class alone, not on the blocks.
            drawn = [
                torch.rand((self.starts, *shape), generator=make_generator(seed, "mm-bd", label))
                for label in block_labels
            ]
            images, labels = torch.cat(drawn).to(target.backend.device), labels.to(target.backend.device)
            best = torch.full((len(images),), -torch.inf, device=images.device)
            for number in range(self.steps + 1):
                computed = gradients(images, labels)
                best = torch.maximum(best, -compute_margin_loss(computed.logits, labels))
                mean = computed.gradients.abs().mean(dim=(1, 2, 3), keepdim=True)
                size = self.step * (1 - number / self.steps)
                images = (images - size * computed.gradients / mean.clamp_min(1e-20)).clamp_(0, 1)
                report_progress((first + len(labels) / self.starts * (number + 1) / (self.steps + 1)) / classes)
            margins.append(best.view(-1, self.starts).T.double().cpu())
        return np.asarray(torch.cat(margins, dim=1).numpy())
