"""The base class of evasion attacks: the sample they are evaluated on, and the loop over batches of it.

An attack perturbs images; this module checks that they stay within their budget, queries the target with them, and
stores what the metrics need (`securitynet.metrics.evasion`).
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.evasion import _gallery
from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._norms import ROUNDING, Norm, measure_norms
from securitynet.attacks.evasion._outcome import Evasion
from securitynet.attacks.evasion._pieces import PieceStore
from securitynet.attacks.evasion._random_targets import IMAGES, average_random, describe_goals
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, SplitError
from securitynet.files import hash_stably
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.methods.output import Output
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.target import Target
from securitynet.records import Queries

NUMBERS_AT_ONCE = 1 << 24
"""Number of values in the perturbed images held in memory at once: 64 MiB."""

VERSION = 2
"""Version of the content of stored pieces; part of the name of their folder."""


@dataclass(frozen=True, eq=False)
class Perturbed:
    """The perturbed versions of n images.

    Attributes:
        examples: Perturbed images in [0, 1], A×E×n×C×H×W float32 for A alternatives (surrogates; 1 for most attacks)
            and E epsilons. Images that the attack does not perturb are unchanged.
        spent: Number of queries for each image and epsilon, E×n, for attacks that query.
        vanished: Whether the gradient of an image was 0 everywhere, n, for attacks that use gradients.
        surrogate: Predictions of each alternative's surrogate for the unperturbed images, A×n.
        part: The part of the attack that made each image evade, E×n, -1 for none; for attacks with several parts.
        goals: The class that each image was to be classified as, n; for targeted attacks.
    """

    examples: torch.Tensor
    spent: NDArray[np.int64] | None = None
    vanished: NDArray[np.bool_] | None = None
    surrogate: NDArray[np.int64] | None = None
    part: NDArray[np.int64] | None = None
    goals: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Perturber:
    """An attack that is ready to run.

    Attributes:
        perturb: Makes examples for a batch; may query the oracle.
        alternatives: Names of the surrogates, if examples are made on several models.
        parts: Names of the parts that `Perturbed.part` counts.
        identity: What determines the examples besides settings, seed, target and images.
        notes: Notes for the reader of the results.
    """

    perturb: Callable[[Batch, Oracle], Perturbed]
    alternatives: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    identity: str = ""
    notes: tuple[str, ...] = ()


class EvasionAttack(Attack):
    """An attack that perturbs images so that the target misclassifies them.

    It is evaluated on non-members: images of the same dataset that the target was not trained on.

    Attributes:
        samples: Number of non-members, chosen at random; with the same seed, all attacks use the same ones.
        epsilons: Budgets in ascending order: largest norms of a perturbation, for images in [0, 1].
        keep_examples: Whether to store the perturbed images with the trial, as array ``examples``, 4 bytes per value.
    """

    output: ClassVar[type[Output]] = Evasion
    most_together: ClassVar[int] = 256
    """Largest number of images in a piece, which is what an interrupted run loses."""

    samples: int = Field(default=1000, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.01, 0.03, 0.1), min_length=1, description="Largest norms of a perturbation, for images in [0, 1]."
    )
    keep_examples: bool = Field(default=False, description="Store the perturbed images with the trial.")

    @field_validator("epsilons")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < epsilon < float("inf") for epsilon in value):
            raise ValueError("each must be positive and finite")
        return tuple(sorted(set(value)))

    @property
    def measured_in(self) -> Norm:
        """Norm in which the perturbations are measured."""
        return "linf"

    @abstractmethod
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        """Prepare everything that is needed before the first image, such as surrogates; errors are raised here.

        Args:
            target: The target.
            data: Data of the trial.
            context: Seed, cache and device.
        """

    def unbounded(
        self, target: Target, images: torch.Tensor, labels: torch.Tensor, context: Context
    ) -> NDArray[np.bool_]:
        """Return whether unbounded steps make the target misclassify images, n; empty for attacks without gradients.

        Args:
            target: The target.
            images: Correctly classified images, n×C×H×W.
            labels: Their classes, n.
            context: Seed.
        """
        return np.empty(0, dtype=bool)

    def unbounded_images(self) -> int:
        """Number of images for `unbounded`."""
        return 0

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Evasion:
        sample = self.sample(target, data, context.seed)
        target = average_random(target, data.dataset.batch(sample[:IMAGES]).float() / 255)
        signals = context.signals(target, data, sample)
        perturber = self.prepare(target, data, context)
        store = PieceStore(self._folder(target, data, context, sample, perturber))
        width = len(perturber.alternatives) or 1
        size = self._together(data.dataset.image_shape, width)
        pieces = []
        for number, start in enumerate(range(0, len(sample), size)):
            part = slice(start, start + size)
            piece = store.read(f"{number:06d}")
            if piece is None:
                images = data.dataset.batch(sample[part]).float() / 255
                labels, clean = (torch.from_numpy(values[part]) for values in (signals.labels, signals.predictions))
                batch = Batch(images, labels, labels == clean, sample[part], number)
                piece = self._piece(Oracle(target, [images]), perturber, batch, clean)
                store.write(f"{number:06d}", piece)
            pieces.append(piece)
            context.extra_queries.append(Queries(total=int(piece["queries"][0]), unique=int(piece["queries"][1])))
            if context.progress:
                context.progress(min(start + size, len(sample)), len(sample))
        right = np.flatnonzero(signals.correct)[: self.unbounded_images()]
        free = np.empty(0, dtype=bool)
        if len(right):
            images = data.dataset.batch(sample[right]).float() / 255
            free = self.unbounded(target, images, torch.from_numpy(signals.labels[right]), context)
        joined = {name: np.concatenate([p[name] for p in pieces], axis=axis) for name, axis in _AXES.items()}
        examples = np.concatenate([p["examples"] for p in pieces], axis=2) if self.keep_examples else None
        shown = _gallery.choose_rows(joined["facts"])
        store.remove()
        return Evasion(
            sample,
            signals.labels,
            signals.predictions,
            np.asarray(self.epsilons, dtype=np.float64),
            joined["perturbed"],
            joined["sizes"],
            self.measured_in,
            perturber.alternatives,
            joined["surrogate"],
            joined["spent"],
            joined["vanished"],
            free,
            (*describe_goals(target), *perturber.notes),
            joined["shown"][shown],
            joined["facts"][shown],
            data.dataset.class_names,
            examples,
            perturber.parts,
            joined["part"],
            joined["goals"],
        )

    def sample(self, target: Target, data: TrialData, seed: int) -> NDArray[np.int64]:
        """Return the records to perturb, sorted.

        Args:
            target: The target.
            data: Data of the trial.
            seed: Seed of the choice.

        Raises:
            ConfigurationError: If there are no images, or only recorded outputs.
            SplitError: If there are no non-members.
        """
        return choose_sample(target, data, self.samples, seed)

    def _together(self, shape: tuple[int, int, int], width: int) -> int:
        numbers = int(np.prod(shape)) * len(self.epsilons) * width
        return max(1, min(self.most_together, NUMBERS_AT_ONCE // numbers))

    def _piece(
        self, oracle: Oracle, perturber: Perturber, batch: Batch, clean: torch.Tensor
    ) -> dict[str, NDArray[Any]]:
        made = perturber.perturb(batch, oracle)
        examples = made.examples
        width, budgets, count = examples.shape[:3]
        predictions = clean.expand(width, budgets, count).clone()
        norms = torch.zeros(width, budgets, count)
        for a in range(width):
            for e, epsilon in enumerate(self.epsilons):
                norms[a, e] = measure_norms(examples[a, e] - batch.images, self.measured_in)
                self._check(examples[a, e], float(norms[a, e].max()), epsilon)
                moved = norms[a, e] > 0
                if e:  # an example may be that of a smaller epsilon
                    same = (examples[a, e] == examples[a, e - 1]).flatten(1).all(dim=1)
                    predictions[a, e, same] = predictions[a, e - 1, same]
                    moved &= ~same
                predictions[a, e, moved] = oracle.labels(examples[a, e, moved])
        shown, rows = _gallery.draw_pictures(batch, examples, predictions)
        queries = oracle.queries
        none = np.empty((budgets, 0), dtype=np.int64)
        return {
            "perturbed": predictions.numpy(),
            "sizes": norms.numpy(),
            "spent": none if made.spent is None else made.spent,
            "vanished": np.empty(0, dtype=bool) if made.vanished is None else made.vanished,
            "surrogate": np.empty((width, 0), dtype=np.int64) if made.surrogate is None else made.surrogate,
            "part": none if made.part is None else made.part,
            "goals": np.empty(0, dtype=np.int64) if made.goals is None else made.goals,
            "shown": shown,
            "facts": rows,
            "queries": np.asarray([queries.total, queries.unique], dtype=np.int64),
            **({"examples": examples.numpy()} if self.keep_examples else {}),
        }

    def _check(self, examples: torch.Tensor, size: float, epsilon: float) -> None:
        inside = float(examples.min()) >= 0 and float(examples.max()) <= 1
        if not inside or not size <= epsilon * (1 + ROUNDING) + ROUNDING:
            raise ConfigurationError(
                f"{type(self).__name__} made an image that is not within {epsilon:g} of the original, or not in "
                "[0, 1]; this is an error in the attack."
            )

    def _folder(
        self, target: Target, data: TrialData, context: Context, sample: NDArray[np.int64], perturber: Perturber
    ) -> Any:
        if context.cache is None:
            return None
        key = hash_stably(
            {
                "version": VERSION,
                "attack": type(self).__module__,
                "settings": self.model_dump(mode="json"),
                "target": target.identity.model_dump(mode="json", exclude={"reference"}),
                "precision": target.precision,
                "dataset": data.dataset.fingerprint,
                "sample": hashlib.sha256(sample.astype("<i8").tobytes()).hexdigest(),
                "seed": context.seed,
                "identity": perturber.identity,
            }
        )
        return context.cache / "evasion" / key


_AXES = {
    "perturbed": 2,
    "sizes": 2,
    "spent": 1,
    "vanished": 0,
    "surrogate": 1,
    "part": 1,
    "goals": 0,
    "shown": 0,
    "facts": 0,
}


def choose_sample(target: Target, data: TrialData, samples: int, seed: int) -> NDArray[np.int64]:
    """Return the non-members to evaluate on, sorted; the same for all attacks with one seed.

    Args:
        target: The target.
        data: Data of the trial.
        samples: Largest number of records.
        seed: Seed of the choice.

    Raises:
        ConfigurationError: If there are no images, or only recorded outputs.
        SplitError: If there are no non-members.
    """
    if isinstance(target.without_interface().backend, RecordedBackend) or data.dataset.images is None:
        raise ConfigurationError(
            f"{target.reference} is a file of recorded outputs; it has none for perturbed images, which are new.",
            hint="Evasion needs the model itself, or an endpoint.",
        )
    pool = data.splits.non_members
    if not len(pool):
        raise SplitError("There are no non-members to perturb.")
    return np.sort(pool[shuffle(len(pool), "evasion", seed)[:samples]])
