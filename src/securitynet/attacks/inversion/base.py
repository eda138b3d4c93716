"""What inversion attacks share: their configuration, their output, and the judge who compares it with the truth."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from securitynet.attacks.base import Attack
from securitynet.attacks.inversion import _judge
from securitynet.attacks.inversion._evaluator import EvaluatorTraining, obtain_evaluator, shared_evaluator
from securitynet.attacks.inversion._search import Search, SearchResult
from securitynet.attacks.inversion._subject import Subject
from securitynet.methods.base import Gallery, Output, SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import inversion
from securitynet.models.targets.target import Target
from securitynet.records import Access, Direction, Measurement

logger = logging.getLogger(__name__)

SHOWN = 4
"""Reconstructions of a class that a gallery shows."""

WORTH_LISTING = 50
"""Up to so many classes, each has a measurement of its own; the arrays hold all."""


@dataclass(frozen=True, eq=False)
class Reconstructions(Output):
    """Reconstructed images and what the judge found of each.

    There are N = L × Q of them: Q restarts of each of L requested classes, those of a class side by side.

    Attributes:
        images: N×C×H×W uint8, as they were judged.
        classes: The requested class of each, N int64.
        posterior: The target's posterior of that class, N.
        iterations: Iterations spent on each, N.
        rank: Classes that the evaluation classifier prefers to the requested one, N; 0 if it recognises it.
        mse: To the mean training image of the class, N.
        ssim: Likewise.
        embedding_distance: To the centroid of the class in the target's embedding, in units of real images' mean
            distance to it, N; NaN if the target has none.
        feature_distance: The same in the evaluation classifier's embedding, N.
        nearest_distance: To the nearest training image of the class in that embedding, in units of the mean distance
            of real images that neither network was trained on, N.
        closer_to_member: Whether its nearest real image, in pixels, is one that the target was trained on, of equally
            many that it was and was not trained on, N.
        labels: The requested classes, L.
        names: Their names, L.
        blank_mse: Of the mean training image of each and the nearest of black, grey and white, L.
        mean_colour_mse: The same for an image in the mean colour of all, L.
        other_class_mse: The same for another class's mean image, averaged over those, L.
        means: Mean training images, L×C×H×W uint8.
        nearest: The training image nearest in pixels to the first reconstruction of each class, L×C×H×W uint8.
        num_classes: Classes of the target.
        recognised: (right answers, images) of the evaluation classifier on real images that it was not trained on, 2.
        notes: What a reader must know; they go to the note of each accuracy.
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("names", "notes"):
            found[name] = np.asarray(found[name], dtype=np.str_)
        return {name: np.asarray(value) for name, value in found.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reconstructions:
        """See `Output.from_arrays`."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        for name in ("names", "notes"):
            values[name] = tuple(str(text) for text in values[name])
        values["num_classes"] = int(values["num_classes"])
        values["recognised"] = tuple(int(number) for number in values["recognised"])
        return cls(**values)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Accuracies of the evaluation classifier, then distances to the classes (`securitynet.metrics.inversion`)."""
        lower = {"direction": Direction.LOWER, "level": level}
        higher = {"direction": Direction.HIGHER, "level": level}
        right, asked = self.recognised
        judge = f"The evaluation classifier recognises {right} of {asked} real images that it was not trained on."
        measured = [inversion.clustered_rate("accuracy", self.rank == 0, self.classes, **lower)]  # type: ignore[arg-type]
        if self.num_classes > 5:
            measured.append(inversion.clustered_rate("top5-accuracy", self.rank < 5, self.classes, **lower))  # type: ignore[arg-type]
        measured = [
            m.with_notes(f"Guessing gives {depth / self.num_classes:.3g}.", judge, *self.notes)
            for m, depth in zip(measured, (1, 5), strict=False)
        ]
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
            self._mean("feature-distance", self.feature_distance, **higher),
            self._mean("knn-distance", self.nearest_distance, **higher),
            # A plain image of a class is the nearest one to many reconstructions of it: each class counts once.
            inversion.clustered_rate(
                "closer-to-member",
                self.closer_to_member,
                self.classes,
                correlation=1.0,
                **lower,  # type: ignore[arg-type]
            ),
            self._mean("posterior", self.posterior, **lower, bounds=(0.0, 1.0)),
        ]
        if len(self.labels) <= WORTH_LISTING:
            measured += inversion.by_class("mse", self.mse, self.classes, **higher)  # type: ignore[arg-type]
        return measured

    def galleries(self) -> list[Gallery]:
        """The first reconstructions of each class beside its mean and the nearest training image."""
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

    def _mean(self, name: str, values: NDArray[np.float64], **options: Any) -> Measurement:
        return inversion.mean_over_classes(name, values, self.classes, **options)


class InversionAttack(Attack):
    """An attack that reconstructs images of chosen classes, all classes and restarts at once.

    Attributes:
        classes: Which; all by default.
        restarts: Reconstructions of each class.
        evaluator: How the classifier that judges them is trained.
        references: Real images of each class that they are compared with, at most.
    """

    output: ClassVar[type[Output]] = Reconstructions
    # The evaluation classifier has another architecture than the target, as far as that is known.
    imitates: ClassVar[bool] = True

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
    def search(self, subject: Subject, data: TrialData, context: Context) -> Search:
        """Everything that is optimised, ready to start. Models of the adversary's are trained here."""

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """The evaluation classifier, by which attacks on one target, and on others of its architecture, are judged."""
        return [shared_evaluator(target, data, self.evaluator, context)]

    def run(self, target: Target, data: TrialData, context: Context) -> Reconstructions:
        """See `Attack.run`."""
        target.require(Access.WHITE_BOX, "gradients to the input")
        subject = Subject.of(target, data, self.classes, self.restarts)
        evaluator = obtain_evaluator(target, data, self.evaluator, context)
        search = self.search(subject, data, context)
        with search.carried_out(context) as found:
            judged = _judge.judge(subject, data, evaluator, found.images, self.references, context.seed)
            return self._output(subject, found, judged, evaluator.recognised)

    def _output(
        self, subject: Subject, found: SearchResult, judged: _judge.Judged, recognised: tuple[int, int]
    ) -> Reconstructions:
        return Reconstructions(
            classes=subject.classes.numpy(),
            iterations=found.iterations,
            labels=np.asarray(subject.labels, dtype=np.int64),
            names=subject.names,
            num_classes=subject.num_classes,
            recognised=recognised,
            **vars(judged),
        )
