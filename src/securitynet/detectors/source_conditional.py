"""Source-conditional: the smallest trigger from each class to each other; one far below its reverse is suspect."""

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
from securitynet.detectors._class_statistics.output import (
    NOTHING,
    SUSPICIOUS,
    UNDECIDED,
    make_verdict,
    show_p_value,
)
from securitynet.detectors._neural_cleanse.costs import CostRules
from securitynet.detectors._neural_cleanse.search import SearchRules, TriggerSearch
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.backdoor_verdict import ALPHA
from securitynet.metrics.class_pairs import FEWEST, Asymmetry, find_asymmetry
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, Direction, Measurement, ThreatModel


@dataclass(frozen=True, eq=False)
class PairNorms(Output):
    """Norms of the smallest triggers from class to class.

    Attributes:
        classes: The classes that were searched, K int64.
        norms: Source by target, K×K float64: sums of masks; infinite where no trigger worked, NaN on the diagonal.
        largest: Norm of a mask that covers the whole image.
        seed: Of the random changes of sign in the test.
        names: Names of the classes, K.
    """

    headline: ClassVar[tuple[str, ...]] = ("verdict", "p-value")

    classes: NDArray[np.int64]
    norms: NDArray[np.float64]
    largest: float
    seed: int
    names: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "classes": self.classes,
            "norms": self.norms,
            "largest": np.asarray(self.largest),
            "seed": np.asarray(self.seed),
            "names": np.asarray(self.names, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PairNorms:
        names = tuple(str(name) for name in arrays["names"])
        return cls(arrays["classes"], arrays["norms"], float(arrays["largest"]), int(arrays["seed"]), names)

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        count = len(self.classes)
        pairs = count * (count - 1)
        off = ~np.eye(count, dtype=bool)
        converged = int(np.isfinite(self.norms[off]).sum())
        # Where no trigger worked, the whole image would have to be replaced.
        norms = np.where(np.isfinite(self.norms) & off, self.norms, self.largest)
        asymmetry = find_asymmetry(np.log(np.maximum(norms, 1e-6)), seed=self.seed) if converged else None
        if asymmetry is None:
            note = f"Undecided: the test needs {FEWEST} classes, and triggers that work."
            none = Measurement(
                name="p-value", value=None, n=pairs, direction=Direction.HIGHER, level=level, method="none", note=note
            )
            return [make_verdict(UNDECIDED, note, level), none]
        rank, sentence = self._decide(asymmetry)

        def make(name: str, value: float, method: str) -> Measurement:
            return Measurement(
                name=name, value=value, low=value, high=value, level=level, n=pairs, direction=Direction.HIGHER,
                method=method,
            )  # fmt: skip

        return [
            make_verdict(rank, sentence, level),
            make("p-value", asymmetry.p_value, "the smaller of both p-values, doubled"),
            make("pair-p-value", asymmetry.pair_p_value, "externally studentised residual, Bonferroni"),
            make("mapping-p-value", asymmetry.mapping_p_value, "random changes of sign"),
            make("pair-ratio", float(np.exp(asymmetry.residual)), "computed exactly"),
            make("converged", converged / pairs, "computed exactly"),
        ]

    def _decide(self, asymmetry: Asymmetry) -> tuple[int, str]:
        source, target = (self.names[number] for number in asymmetry.pair)
        shown = show_p_value(asymmetry.p_value)
        if asymmetry.p_value > ALPHA:
            return NOTHING, (
                f"Nothing found: no class needs a far smaller trigger towards another than the reverse ({shown}). A "
                "backdoor from all classes to one is not looked for here: Neural Cleanse and MM-BD do that."
            )
        if asymmetry.pair_p_value <= asymmetry.mapping_p_value:
            return SUSPICIOUS, (
                f"Suspicious: class {source} needs a far smaller trigger towards class {target} than the other pairs "
                f"lead one to expect ({shown}), as a source-specific backdoor has it."
            )
        arrows = ", ".join(
            f"{self.names[number]} to {self.names[goal]}" for number, goal in enumerate(asymmetry.mapping[:4])
        )
        return SUSPICIOUS, (
            f"Suspicious: every class has another towards which it needs a smaller trigger than the reverse ({arrows}"
            f"{', ...' if len(asymmetry.mapping) > 4 else ''}; {shown}), as an all-to-all backdoor has it."
        )


class SourceConditional(Detector):
    """Search the smallest trigger for each pair of source and target class on images of the source class alone.

    Neural Cleanse's search (Wang et al., 2019, section V-A) with the images of one class, as Xiang et al., "Detection
    of backdoors in trained classifiers without access to the training set" (IEEE TNNLS 2020), section III, search each
    pair of classes. A trigger that works on images of some classes only, or that sends each class to another, is missed
    by a search over images of all classes. The test compares both directions of a pair
    (`securitynet.metrics.class_pairs`).
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = PairNorms
    costs: ClassVar[str | None] = "optimises a trigger for each pair of classes, which takes thousands of passes"

    images: int = Field(default=32, ge=2, description="Clean images of each class; fewer if fewer are known.")
    classes: int = Field(default=20, ge=FEWEST, description="Most classes; more are sampled at random.")
    epochs: int = Field(default=60, ge=1, description="Passes over the images of each source class.")
    batch_size: int = Field(default=16, ge=1, description="Images in a step.")
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="Learning rate of Adam.")
    initial_cost: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="First weight of the mask's norm in the loss."
    )
    success: float = Field(default=0.95, gt=0, le=1, description="Least share of images for a trigger to work.")
    patience: int = Field(default=2, ge=1, description="Epochs in a row after which the weight changes.")
    multiplier: float = Field(default=2.0, gt=1, allow_inf_nan=False, description="Factor of the weight after success.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> PairNorms:
        known = data.splits.known_non_members
        if data.dataset.images is None:
            raise ConfigurationError(f"{data.dataset.reference} holds recorded outputs and no images.")
        by_class = {int(label): known[data.dataset.labels[known] == label] for label in range(data.dataset.num_classes)}
        usable = [label for label, rows in by_class.items() if len(rows) >= 2]
        if len(usable) < FEWEST:
            raise ConfigurationError(
                f"A search from class to class needs clean images of {FEWEST} classes; two or more are known of "
                f"{len(usable)}.",
                hint="Use a split with more known non-members (--known).",
            )
        order = shuffled(len(usable), "source-conditional classes", context.seed)[: self.classes]
        classes = np.sort(np.array(usable, dtype=np.int64)[order])
        norms = np.full((len(classes), len(classes)), np.nan)
        for number, source in enumerate(classes.tolist()):
            rows = by_class[source]
            rows = np.sort(rows[shuffled(len(rows), "source-conditional", context.seed, source)[: self.images]])
            others = np.arange(len(classes)) != number
            norms[number, others] = self._search(target, data.dataset.batch(rows), classes[others], context.seed)
            if context.progress:
                context.progress(number + 1, len(classes))
        height, width = data.dataset.image_shape[1:]
        names = tuple(data.dataset.class_names[label] for label in classes.tolist())
        return PairNorms(classes, norms, float(height * width), context.seed, names)

    def _search(
        self, target: Target, images: torch.Tensor, labels: NDArray[np.int64], seed: int
    ) -> NDArray[np.float64]:
        """Norms of the smallest triggers that send images, S×C×H×W uint8, to each of the labels."""
        costs = CostRules(
            initial=self.initial_cost,
            threshold=self.success,
            patience=self.patience,
            multiplier=self.multiplier,
            stop_ratio=1.0,
            stop_patience=None,
        )
        rules = SearchRules(costs, self.learning_rate, self.batch_size, derived_seed(seed, "source-conditional"))
        run = TriggerSearch(target, images.to(target.backend.device), labels.tolist(), rules)
        for epoch in range(self.epochs):
            run.epoch(epoch)
        return np.asarray(run.norms().numpy())
