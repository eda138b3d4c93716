"""The base of detectors that inspect the training data: records, poison to evaluate them on, and their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.base import Images
from securitynet.datasets.ordering import shuffled
from securitynet.detectors._fitted_filter import check_enough
from securitynet.detectors._known_trigger import Trigger
from securitynet.detectors._queries import Arrays, QueryClient, joined, pieces_folder
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.models.training.poisoned_dataset import ChangedImages
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_RECORDS = 20
"""Smallest number of training records with which a class is tested."""

FEWEST_CLEAN = 5
"""Smallest number of clean images with which a class is tested."""

PIECE = 512
"""Number of records whose activations are computed and stored together."""


@dataclass(frozen=True, eq=False)
class TrainingEmbeddings:
    """Embeddings of training records and of clean images.

    Attributes:
        images: Images of the dataset; poisoned records carry the trigger.
        members: Training records, N int64.
        labels: Classes that they were trained with, N.
        poisoned: Whether each is poisoned, N; None if unknown.
        training: Their embeddings, N×D.
        clean: Clean images, M int64.
        beside: Their embeddings, M×D.
    """

    images: Images
    members: NDArray[np.int64]
    labels: NDArray[np.int64]
    poisoned: NDArray[np.bool_] | None
    training: NDArray[np.float32]
    clean: NDArray[np.int64]
    beside: NDArray[np.float32]


class TrainingDataDetector(Detector):
    """A detector that compares the embeddings of training records with those of clean images, class by class.

    Attributes:
        records: Largest number of training records to inspect.
        held_out: Largest number of clean images to compare with.
        trigger: A known trigger, to measure detection: it is applied to the share ``rate`` of the training records,
            which are labelled as the target predicts them, as its trainer would have done. For a target trained with a
            known backdoor, its poisoned training set is used by default.
        rate: See ``trigger``.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    records: int = Field(default=10_000, ge=1, description="Largest number of training records to inspect.")
    held_out: int = Field(default=5_000, ge=1, description="Largest number of clean images to compare with.")
    trigger: Trigger | None = Field(default=None, description="A known trigger: FILE.npz, or size, corner, value.")
    rate: float = Field(default=0.1, gt=0, lt=1, description="Share of records that the trigger is applied to.")

    def _embed(self, target: Target, data: TrialData, context: Context, name: str) -> TrainingEmbeddings:
        """Compute the embeddings of the training records and of clean images.

        Args:
            target: The target.
            data: The training data and clean images.
            context: Seed, cache and query count.
            name: What needs them, the subject of messages.

        Raises:
            ConfigurationError: If there are no images.
            SplitError: If there are too few.
        """
        dataset, splits = data.dataset, data.splits
        if dataset.images is None:
            raise ConfigurationError(f"{name} needs images; recorded outputs have none.")
        members = _sample(splits.members, self.records, "records", context.seed)
        clean = _sample(splits.known_non_members, self.held_out, "held out", context.seed)
        check_enough(torch.from_numpy(members), FEWEST_RECORDS, name)
        check_enough(torch.from_numpy(clean), FEWEST_CLEAN, name)
        client = QueryClient(target)
        folder = self._folder(target, data, context, members, clean)
        report_progress = _PassProgress(context, len(members) + len(clean))
        try:
            images, labels, poisoned = self._training(client, data, members, context.seed)
            activations = _activations(client, images, members, "training", folder, report_progress)
            beside = _activations(client, dataset.images, clean, "clean", folder, report_progress)
        finally:  # the queries of a failed trial count too
            context.extra_queries.append(client.query_count())
        return TrainingEmbeddings(images, members, labels, poisoned, activations, clean, beside)

    def _folder(
        self,
        target: Target,
        data: TrialData,
        context: Context,
        members: NDArray[np.int64],
        clean: NDArray[np.int64],
    ) -> Path | None:
        settings = {
            "trigger": None if self.trigger is None else self.trigger.model_dump(mode="json"),
            "rate": self.rate,
        }
        return pieces_folder(target, data, context, "embeddings", settings, {"members": members, "clean": clean})

    def _training(
        self, client: QueryClient, data: TrialData, members: NDArray[np.int64], seed: int
    ) -> tuple[Images, NDArray[np.int64], NDArray[np.bool_] | None]:
        """Return the images, the labels of ``members``, and which of them are poisoned, if known."""
        dataset = data.dataset
        assert dataset.images is not None  # checked by the caller
        labels = dataset.labels[members].copy()
        if self.trigger is None:
            if data.backdoor is None:
                return dataset.images, labels, None
            poisoned_set = data.backdoor.poison(dataset, data.splits.members)
            return poisoned_set.images, poisoned_set.labels[members], np.isin(members, poisoned_set.indices)
        trigger = self.trigger
        trigger.blend(*dataset.image_shape)  # raises an error if the trigger does not fit
        count = max(1, round(self.rate * len(members)))
        order = shuffled(len(members), "activation clustering poison", seed)
        poisoned = np.zeros(len(members), dtype=bool)
        for chosen in _chunks(order):  # only images whose prediction the trigger changes
            if poisoned.sum() >= count:
                break
            predicted = client.outputs(trigger.apply_trigger(dataset.batch(members[chosen]))).argmax(dim=1).numpy()
            works = np.flatnonzero(predicted != labels[chosen])[: count - int(poisoned.sum())]
            poisoned[chosen[works]] = True
            labels[chosen[works]] = predicted[works]
        images = ChangedImages(dataset.images, members[poisoned], lambda shown, _: trigger.apply_trigger(shown))
        return images, labels, poisoned


class _PassProgress:
    """Progress over several passes."""

    def __init__(self, context: Context, total: int) -> None:
        self._progress, self._total, self._done = context.progress, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _activations(
    client: QueryClient,
    images: Images,
    indices: NDArray[np.int64],
    what: str,
    folder: Path | None,
    report_progress: _PassProgress,
) -> NDArray[np.float32]:
    """Compute the input of the classifier layer for each record, N×D, in pieces that are stored when complete."""
    activations = []
    for number, chosen in enumerate(_chunks(indices)):

        def compute(chosen: NDArray[np.int64] = chosen) -> Arrays:
            return {"embeddings": client.embeddings(images[torch.from_numpy(chosen)]).numpy()}

        path = None if folder is None else folder / f"{what} {number:06d}.npz"
        activations.append(client.piece(path, compute))
        report_progress(len(chosen))
    return joined(activations)["embeddings"]


def _chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [indices[start : start + PIECE] for start in range(0, len(indices), PIECE)]


def _sample(indices: NDArray[np.int64], most: int, purpose: str, seed: int) -> NDArray[np.int64]:
    return np.sort(indices[shuffled(len(indices), f"activation clustering {purpose}", seed)[:most]])
