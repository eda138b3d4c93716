"""The base of detectors that inspect the training data: records, poison to evaluate on, and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.base import Images
from securitynet.datasets.ordering import shuffle
from securitynet.detectors._fitted_filter import check_enough
from securitynet.detectors._known_trigger import Trigger
from securitynet.detectors._queries import Arrays, QueryClient, concatenate_pieces, find_pieces_folder
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
class TrainingRecords:
    """Training records, and clean images to compare them with.

    Attributes:
        images: Images of the dataset; poisoned records carry the trigger.
        members: Training records, N int64.
        labels: Classes that they were trained with, N.
        poisoned: Whether each is poisoned, N; None if unknown.
        clean: Clean images, M int64.
    """

    images: Images
    members: NDArray[np.int64]
    labels: NDArray[np.int64]
    poisoned: NDArray[np.bool_] | None
    clean: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainingEmbeddings(TrainingRecords):
    """Training records and clean images with their embeddings.

    Attributes:
        training: Embeddings of the training records, N×D.
        beside: Embeddings of the clean images, M×D.
    """

    training: NDArray[np.float32]
    beside: NDArray[np.float32]


class TrainingDataDetector(Detector):
    """A detector that compares training records with clean images, class by class.

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
        members, clean = self._sample(data, context.seed, name)
        client = QueryClient(target)
        folder = self._folder(target, data, context, members, clean)
        report_progress = _PassProgress(context, len(members) + len(clean))
        try:
            records = self._training(client, data, members, clean, context.seed)
            training = _activations(client, records.images, members, "training", folder, report_progress)
            beside = _activations(client, records.images, clean, "clean", folder, report_progress)
        finally:  # the queries of a failed trial count too
            context.extra_queries.append(client.query_count())
        return TrainingEmbeddings(**vars(records), training=training, beside=beside)

    def _collect(self, target: Target, data: TrialData, context: Context, name: str) -> TrainingRecords:
        """Collect the training records and clean images; see `_embed`."""
        members, clean = self._sample(data, context.seed, name)
        if self.trigger is None:
            return self._training(None, data, members, clean, context.seed)
        client = QueryClient(target)
        try:
            return self._training(client, data, members, clean, context.seed)
        finally:
            context.extra_queries.append(client.query_count())

    def _sample(self, data: TrialData, seed: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the training records and the clean images, both sorted."""
        if data.dataset.images is None:
            raise ConfigurationError(f"{name} needs images; recorded outputs have none.")
        members = _sample(data.splits.members, self.records, "records", seed)
        clean = _sample(data.splits.known_non_members, self.held_out, "held out", seed)
        check_enough(torch.from_numpy(members), FEWEST_RECORDS, name)
        check_enough(torch.from_numpy(clean), FEWEST_CLEAN, name)
        return members, clean

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
        return find_pieces_folder(target, data, context, "embeddings", settings, {"members": members, "clean": clean})

    def _training(
        self,
        client: QueryClient | None,
        data: TrialData,
        members: NDArray[np.int64],
        clean: NDArray[np.int64],
        seed: int,
    ) -> TrainingRecords:
        """Return the records as the target was trained on them, and which are poisoned, if known.

        Args:
            client: Predicts the labels of records with a known trigger.
            data: The training data.
            members: The training records.
            clean: The clean images.
            seed: Seed of the choice of poisoned records.
        """
        dataset = data.dataset
        assert dataset.images is not None  # checked by the caller
        labels = dataset.labels[members].copy()
        if self.trigger is None or client is None:
            if data.backdoor is None:
                return TrainingRecords(dataset.images, members, labels, None, clean)
            poisoned_set = data.backdoor.poison(dataset, data.splits.members)
            marked = np.isin(members, poisoned_set.indices)
            return TrainingRecords(poisoned_set.images, members, poisoned_set.labels[members], marked, clean)
        trigger = self.trigger
        trigger.blend(*dataset.image_shape)  # raises an error if the trigger does not fit
        count = max(1, round(self.rate * len(members)))
        order = shuffle(len(members), "activation clustering poison", seed)
        poisoned = np.zeros(len(members), dtype=bool)
        for chosen in _chunks(order):  # only images whose prediction the trigger changes
            if poisoned.sum() >= count:
                break
            predicted = client.outputs(trigger.apply_trigger(dataset.batch(members[chosen]))).argmax(dim=1).numpy()
            works = np.flatnonzero(predicted != labels[chosen])[: count - int(poisoned.sum())]
            poisoned[chosen[works]] = True
            labels[chosen[works]] = predicted[works]
        images = ChangedImages(dataset.images, members[poisoned], lambda shown, _: trigger.apply_trigger(shown))
        return TrainingRecords(images, members, labels, poisoned, clean)


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
    return concatenate_pieces(activations)["embeddings"]


def _chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [indices[start : start + PIECE] for start in range(0, len(indices), PIECE)]


def _sample(indices: NDArray[np.int64], most: int, purpose: str, seed: int) -> NDArray[np.int64]:
    return np.sort(indices[shuffle(len(indices), f"activation clustering {purpose}", seed)[:most]])
