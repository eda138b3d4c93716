"""Generated triggers: how little a small network must change images to send them to each class; any form of trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffled
from securitynet.detectors._class_statistics.output import UNDECIDED, ClassStatistics
from securitynet.detectors._generated_triggers.generators import train_generators
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.high_outliers import HighOutlier
from securitynet.models.targets.embeddings import finder
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_IMAGES = 8
"""Correctly classified images without which nothing is trained."""

UNREACHED = -50.0
"""Stands for the negative logarithm of an infinite norm."""


@dataclass(frozen=True, eq=False)
class GeneratedChanges(ClassStatistics):
    """Two statistics of each class from each starting point, 2×R×K.

    Closeness is the negative logarithm of the mean change that turns images into the class; constancy that of the
    spread of the embeddings of the changed images, as a share of the spread of the unchanged ones.
    """

    blind_spot: ClassVar[str] = (
        "A backdoor with many targets, or one that needs an image of one class, can go unseen, and so can one whose "
        "trigger is about as large as what turns clean images into other classes."
    )

    @override
    def decide(self, row: int, outlier: HighOutlier, low: float, high: float) -> tuple[int, str]:
        unreached = np.flatnonzero(self.statistics[0] <= UNREACHED)
        if len(unreached):
            return UNDECIDED, (
                f"Undecided: no change was found that turns images into class {self.names[int(unreached[0])]}, so the "
                "classes cannot be compared; more steps may help."
            )
        return super().decide(row, outlier, low, high)


class GeneratedTriggers(Detector):
    """Train, for each class, a small network that changes images into that class by as little as possible.

    After FeatureRE (Wang et al., "Rethinking the reverse-engineering of Trojan triggers", 2022, section 4), where a
    trigger is any function of the image, not a patch, and the embeddings of images with it lie close together. The
    same function class finds the triggers of BTI-DBF (Xu et al., "Towards reliable and efficient backdoor trigger
    inversion via decoupling benign features", 2024, section 4). Where FeatureRE bounds the change and the spread of the
    embeddings by constants that depend on the network, both are compared between classes here: the one with the
    smallest change, or with the most constant embeddings, is tested by Grubbs' test
    (`securitynet.metrics.high_outliers`).
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = GeneratedChanges
    costs: ClassVar[str | None] = "trains a network for each class, which takes thousands of passes of the target"

    images: int = Field(
        default=64, ge=FEWEST_IMAGES, description="Images that train the networks; fewer if fewer known."
    )
    steps: int = Field(default=150, ge=8, description="Steps of the training.")
    success: float = Field(default=0.9, gt=0, le=1, description="Least share of images that reach the class.")
    restarts: int = Field(default=1, ge=1, description="Starting points; a class's statistics are the largest of them.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> GeneratedChanges:
        images, fresh = self._choose_images(target, data, context.seed)
        with torch.inference_mode():
            classes = int(target.module(images[:1]).shape[1])
        network = target.backend.module
        extract = finder(network, target.preprocessing(images[:3]), reference=target.reference)

        def measure_spread(shown: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return extract(network, target.preprocessing(shown)).std(dim=0).mean()

        usual = measure_spread(fresh)
        closeness, constancy = [], []
        for number in range(self.restarts):

            def report_progress(share: float, number: int = number) -> None:
                if context.progress:
                    context.progress(round(1000 * (number + share) / self.restarts), 1000)

            generated = train_generators(
                target,
                images,
                fresh,
                classes,
                steps=self.steps,
                success=self.success,
                seed=derived_seed(context.seed, "generated-triggers", number),
                report_progress=report_progress,
            )
            closeness.append(-generated.norms.log().clamp(-100, -UNREACHED))
            spreads = torch.stack([measure_spread(changed) for changed in generated.images])
            constancy.append(-(spreads / usual).clamp_min(1e-6).log().double().cpu())
        values = np.stack([torch.stack(closeness).numpy(), torch.stack(constancy).numpy()])
        names = data.dataset.class_names
        shown = tuple(names[label] if label < len(names) else str(label) for label in range(classes))
        titles = ("closeness (small changes turn images into it)", "constancy of embeddings")
        return GeneratedChanges(values.clip(min=UNREACHED), titles, shown)

    def _choose_images(self, target: Target, data: TrialData, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Correctly classified known images in [0, 1]: those for the training, and others to try the networks on."""
        known = data.splits.known_non_members
        if not len(known) or data.dataset.images is None:
            raise ConfigurationError(
                "This search needs clean images that the model was not trained on; none are known.",
                hint="Use a split with known non-members (--known).",
            )
        chosen = known[shuffled(len(known), "generated-triggers", seed)[: 4 * self.images]]
        images = data.dataset.batch(chosen).to(target.backend.device).float() / 255
        labels = torch.from_numpy(data.dataset.labels[chosen]).to(images.device)
        with torch.inference_mode():
            images = images[target.module(images).argmax(dim=1) == labels]
        if len(images) < 2 * FEWEST_IMAGES:
            raise ConfigurationError(
                f"{target.reference} classifies {len(images)} of {len(chosen)} known images correctly; "
                f"{2 * FEWEST_IMAGES} are needed.",
                hint="Give more clean images (--known), and check the preprocessing (--normalize).",
            )
        count = min(self.images, len(images) // 2)
        return images[:count], images[count : 2 * count]
