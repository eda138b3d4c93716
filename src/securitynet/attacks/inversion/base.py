"""The base class of inversion attacks, and their output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.inversion import _judge
from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._evaluator import (
    Evaluator,
    EvaluatorTraining,
    describe_evaluator,
    obtain_evaluator,
)
from securitynet.attacks.inversion._search import InversionResult, InversionSearch
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Gallery, Output
from securitynet.metrics import inversion, inversion_judge
from securitynet.models.targets.target import Target
from securitynet.records import Access, Direction, Measurement

SHOWN = 4
"""Number of reconstructions of each class that a gallery shows."""

WORTH_LISTING = 50
"""Up to this many classes, each class gets measurements of its own; the stored arrays contain all classes."""


@dataclass(frozen=True, eq=False)
class Reconstructions(Output):
    """Reconstructed images and their comparison with the training data.

    There are N = L × Q of them, with Q restarts for each of L requested classes; those of one class are consecutive.

    Attributes:
        images: The reconstructions as they were evaluated, N×C×H×W uint8.
        classes: The requested class of each, N int64.
        posterior: The target's posterior of that class, N.
        iterations: Number of iterations spent on each, N.
        rank: Number of classes that the evaluation classifier prefers to the requested one, N; 0 if it agrees.
        mse: Mean squared error to the mean training image of the class, N.
        ssim: Structural similarity to the mean training image of the class, N.
        embedding_distance: Distance to the centroid of the class in the target's embedding, relative to the mean
            distance of real images, N; NaN if the target has no embedding.
        feature_distance: The same in the embedding of the evaluation classifier, N.
        nearest_distance: Distance to the nearest training image of the class in that embedding, relative to the mean
            distance of real images that neither network was trained on, N.
        closer_to_member: Whether the nearest real image, in pixels, is one that the target was trained on, among equal
            numbers of images that it was and was not trained on, N.
        labels: The requested classes, L.
        names: Their names, L.
        blank_mse: Mean squared error between the mean training image of each class and the nearest of black, grey and
            white, L.
        mean_colour_mse: The same for an image in the mean colour of all images, L.
        other_class_mse: The same for the mean image of another class, averaged over the other classes, L.
        means: Mean training images, L×C×H×W uint8.
        nearest: The training image nearest in pixels to the first reconstruction of each class, L×C×H×W uint8.
        num_classes: Number of classes of the target.
        recognised: Number of real images that the evaluation classifier, which was not trained on them, recognises,
            and number of those images, 2.
        commonest: Number of those images that belong to their most frequent class; 0 in results that do not state it.
        notes: Notes for the reader; they are added to the note of each accuracy.
    """

    headline: ClassVar[tuple[str, ...]] = ("accuracy", "top5-accuracy", "mse", "mse-mean-colour", "closer-to-member")

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    posterior: NDArray[np.float64]
    iterations: NDArray[np.int64]
    rank: NDArray[np.int64]
    mse: NDArray[np.float64]
    ssim: NDArray[np.float64]
    embedding_distance: NDArray[np.float64]
    feature_distance: NDArray[np.float64]
    nearest_distance: NDArray[np.float64]
    closer_to_member: NDArray[np.bool_]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    blank_mse: NDArray[np.float64]
    mean_colour_mse: NDArray[np.float64]
    other_class_mse: NDArray[np.float64]
    means: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    num_classes: int
    recognised: tuple[int, int]
    notes: tuple[str, ...] = ()
    commonest: int = 0

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("names", "notes"):
            arrays[name] = np.asarray(arrays[name], dtype=np.str_)
        return {name: np.asarray(value) for name, value in arrays.items()}

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reconstructions:
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls) if field.name in arrays}
        for name in ("names", "notes"):
            values[name] = tuple(str(text) for text in values[name])
        for name in ("num_classes", "commonest"):
            values[name] = int(values.get(name, 0))
        values["recognised"] = tuple(int(number) for number in values["recognised"])
        return cls(**values)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute accuracies of the evaluation classifier, then distances to the classes; see `metrics.inversion`."""
        lower = {"direction": Direction.LOWER, "level": level}
        higher = {"direction": Direction.HIGHER, "level": level}
        measured, warning = self._recognition(level)
        each = np.unique(self.classes, return_inverse=True)[1]
        square = {"bounds": (0.0, 1.0)}
        measured += [
            self._mean("mse", self.mse, **higher, **square),
            self._mean("mse-blank", self.blank_mse[each], **higher, **square),
            self._mean("mse-mean-colour", self.mean_colour_mse[each], **higher, **square),
            self._mean("mse-other-class", self.other_class_mse[each], **higher, **square),
            self._mean("mse-gain", self.mean_colour_mse[each] - self.mse, **lower, bounds=(-1.0, 1.0)),
            self._mean("ssim", self.ssim, **lower, bounds=(-1.0, 1.0)),
            self._mean("embedding-distance", self.embedding_distance, **higher),
            self._mean("feature-distance", self.feature_distance, **higher).with_notes(warning),
            self._mean("knn-distance", self.nearest_distance, **higher).with_notes(warning),
            # One plain image of a class is often the nearest to many of its reconstructions, so each class counts once.
            inversion.measure_clustered_rate(
                "closer-to-member",
                self.closer_to_member,
                self.classes,
                correlation=1.0,
                **lower,  # type: ignore[arg-type]
            ),
            self._mean("posterior", self.posterior, **lower, bounds=(0.0, 1.0)),
        ]
        if len(self.labels) <= WORTH_LISTING:
            measured += inversion.measure_by_class("mse", self.mse, self.classes, **higher)  # type: ignore[arg-type]
        return measured

    def galleries(self) -> list[Gallery]:
        """Show the first reconstructions of each class beside its mean and the nearest training image."""
        restarts = min(SHOWN, len(self.images) // len(self.labels))
        rows = []
        for number, label in enumerate(self.labels):
            own = self.images[self.classes == label][:restarts]
            rows.append(np.concatenate([self.means[number][None], self.nearest[number][None], own]))
        numbered = ["reconstruction"] if restarts == 1 else [f"reconstruction {n + 1}" for n in range(restarts)]
        caption = (
            "The mean of each class's training images, the training image of that class nearest to the first "
            "reconstruction (in pixels), and what the attack recovered from the model."
        )
        columns = ("class mean", "nearest training image", *numbered)
        return [Gallery("Reconstructed classes", caption, np.stack(rows), self.names, columns)]

    def _recognition(self, level: float) -> tuple[list[Measurement], str]:
        """Measure what the evaluation classifier recognises; the second result warns if it recognises nothing."""
        right, judged = self.recognised
        judge = inversion_judge.judge_accuracy(right, judged, level=level)
        chance = inversion_judge.compute_chance_accuracy(self.num_classes, self.commonest, judged)
        seen = f"The evaluation classifier recognises {right} of {judged} real images that it was not trained on"
        depths = {"accuracy": 1, "top5-accuracy": 5} if self.num_classes > 5 else {"accuracy": 1}
        rates = {
            name: inversion.measure_clustered_rate(
                name, self.rank < depth, self.classes, direction=Direction.LOWER, level=level
            ).with_notes(f"Guessing gives {depth / self.num_classes:.3g}.")
            for name, depth in depths.items()
        }
        if not inversion_judge.is_blind(judge, chance):
            ratio = inversion_judge.measure_accuracy_ratio(rates["accuracy"], judge)
            return [*(m.with_notes(f"{seen}.", *self.notes) for m in rates.values()), ratio, judge], ""
        warning = f"{seen}, which it could without looking at them ({chance:.3g}): it cannot judge reconstructions."
        names = (*rates, "accuracy-ratio")
        withheld = [
            Measurement(
                name=name,
                value=None,
                level=level,
                n=len(self.images),
                direction=Direction.LOWER,
                method="none",
                note=warning,
            )
            for name in names
        ]
        return [*(m.with_notes(*self.notes) for m in withheld), judge], warning

    def _mean(self, name: str, values: NDArray[np.float64], **options: Any) -> Measurement:
        return inversion.measure_mean_over_classes(name, values, self.classes, **options)


class InversionAttack(Attack):
    """An attack that reconstructs images of chosen classes; all classes and restarts are optimised together.

    Attributes:
        classes: Classes to reconstruct; all by default.
        restarts: Number of reconstructions of each class.
        evaluator: How the evaluation classifier is trained.
        references: Largest number of real images of each class to compare with.

    Class attributes:
        needs_gradient: Whether it needs gradients of the target, and not only its outputs.
    """

    output: ClassVar[type[Output]] = Reconstructions
    # The evaluation classifier has another architecture than the target, as far as that is known.
    trains_like_target: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    classes: tuple[int, ...] | None = Field(default=None, min_length=1, description="Classes to reconstruct.")
    restarts: int = Field(default=5, ge=1, description="Reconstructions of each class.")
    evaluator: EvaluatorTraining = EvaluatorTraining()
    references: int = Field(default=2000, ge=2, description="Real images of each class to compare with, at most.")

    @field_validator("classes")
    @classmethod
    def _each_once(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (min(value) < 0 or len(set(value)) < len(value)):
            raise ValueError("classes are numbered from 0 and given once each")
        return value

    @abstractmethod
    def search(self, attacked: AttackedClasses, data: TrialData, context: Context) -> InversionSearch:
        """Prepare the optimisation; models of the adversary are trained here.

        Args:
            attacked: The target and the requested classes.
            data: Data of the trial.
            context: Seed, cache and device.
        """

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the evaluation classifier, which serves all attacks on targets of this architecture."""
        return [describe_evaluator(target, data, self.evaluator, context)]

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Reconstructions:
        if self.needs_gradient:
            target.require(Access.WHITE_BOX, "gradients to the input")
        attacked = AttackedClasses.of(target, data, self.classes, self.restarts, gradient=self.needs_gradient)
        evaluator = obtain_evaluator(target, data, self.evaluator, context)
        search = self.search(attacked, data, context)
        with search.carried_out(context) as result:
            judged = _judge.judge_reconstructions(
                attacked, data, evaluator, result.images, self.references, context.seed
            )
            return self._output(attacked, result, judged, evaluator)

    def _output(
        self,
        attacked: AttackedClasses,
        result: InversionResult,
        judged: _judge.JudgedReconstructions,
        evaluator: Evaluator,
    ) -> Reconstructions:
        return Reconstructions(
            classes=attacked.classes.numpy(),
            iterations=result.iterations,
            labels=np.asarray(attacked.labels, dtype=np.int64),
            names=attacked.names,
            num_classes=attacked.num_classes,
            recognised=evaluator.recognised,
            commonest=evaluator.commonest,
            **{**vars(judged), "notes": (*judged.notes, *result.notes)},
        )
