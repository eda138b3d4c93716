"""Activation clustering: poisoned training records of a class excite the network otherwise than the others do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.base import Images
from securitynet.datasets.ordering import shuffled
from securitynet.detectors._activation_clustering.clusters import Clusters, Reduction, divide
from securitynet.detectors._fitted_filter import check_enough
from securitynet.detectors._known_trigger import Trigger
from securitynet.detectors._queries import Arrays, QueryClient, joined, pieces_folder
from securitynet.detectors.base import Detector
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.models.training.poisoned_dataset import ChangedImages
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_RECORDS = 20
"""Training records without which a class is not divided."""

FEWEST_CLEAN = 5
"""Clean images without which a class is not divided."""

PIECE = 512
"""Records whose activations are computed, and kept on disk, together."""

PICTURED_CLASSES = 3
PICTURED_RECORDS = 8


class ActivationClustering(Detector):
    """Divides each class's training records by their activations: is one part foreign to clean images?

    Chen et al., "Detecting backdoor attacks on deep neural networks by activation clustering" (2019). It needs the
    data that the target was trained on, poison included, and no search for a trigger. Two verdicts stand side by side:
    the paper's rule (silhouette and size of the smaller cluster), which also flags classes that consist of two kinds
    of images; and a p-value from clean images that were not trained on (`securitynet.metrics.clusters.foreign`):
    those share a class's kinds, and do not share its poison.

    Attributes:
        records: Training records that are looked at, at most.
        held_out: Clean images beside them, at most.
        dims: Components that activations are reduced to.
        reduction: ``pca``, or ``ica`` as in the paper. On a public backdoored model ICA found fewer of the poisoned
            records, and the paper's rule flagged more clean classes with it.
        trigger: A known trigger, to measure detection: ``rate`` of the training records are stamped, and labelled as
            the target predicts them, as its trainer would have done. For a target that a backdoor was planted in, the
            training set with its poison is used without asking.
        rate: See ``trigger``.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = Clusters
    costs: ClassVar[str | None] = "computes and clusters the activations of thousands of training records"

    records: int = Field(default=10_000, ge=1, description="Training records that are looked at, at most.")
    held_out: int = Field(default=5_000, ge=1, description="Clean images beside them, at most.")
    dims: int = Field(default=10, ge=1, description="Components that activations are reduced to.")
    reduction: Reduction = Field(default="pca", description="pca, or ica as in the paper.")
    trigger: Trigger | None = Field(default=None, description="A known trigger: FILE.npz, or size, corner, value.")
    rate: float = Field(default=0.1, gt=0, lt=1, description="Share of records that are stamped with it.")

    def run(self, target: Target, data: TrialData, context: Context) -> Clusters:
        """See `Method.run`."""
        dataset, splits = data.dataset, data.splits
        if dataset.images is None:
            raise ConfigurationError("Activation clustering needs images; recorded outputs have none.")
        members = _sample(splits.members, self.records, "records", context.seed)
        clean = _sample(splits.known_non_members, self.held_out, "held out", context.seed)
        check_enough(torch.from_numpy(members), FEWEST_RECORDS, "Activation clustering")
        check_enough(torch.from_numpy(clean), FEWEST_CLEAN, "Activation clustering")
        client = QueryClient(target)
        folder = self._folder(target, data, context, members, clean)
        report_progress = _PassProgress(context, len(members) + len(clean))
        try:
            images, labels, poisoned = self._training(client, data, members, context.seed)
            activations = _activations(client, images, members, "training", folder, report_progress)
            beside = _activations(client, dataset.images, clean, "clean", folder, report_progress)
        finally:  # the queries of a failed trial count too
            context.extra_queries.append(client.query_count())
        classes = np.unique(labels)
        owner = np.full(len(members), -1, dtype=np.int64)
        silhouettes = np.full(len(classes), np.nan)
        counts = np.zeros((2, len(classes), 2), dtype=np.int64)
        for k, label in enumerate(classes.tolist()):
            mine, other = np.flatnonzero(labels == label), np.flatnonzero(dataset.labels[clean] == label)
            if len(mine) < FEWEST_RECORDS or len(other) < FEWEST_CLEAN:
                continue
            division = divide(
                activations[mine],
                beside[other],
                reduction=self.reduction,
                dims=self.dims,
                seed=derived_seed(context.seed, "activation clustering", label),
            )
            owner[mine], silhouettes[k] = division.owner, division.silhouette
            counts[0, k] = np.bincount(division.owner, minlength=2)
            counts[1, k] = np.bincount(division.clean, minlength=2)
        found = Clusters(
            members,
            labels,
            owner,
            classes,
            tuple(dataset.class_names[label] for label in classes),
            silhouettes,
            counts[0],
            counts[1],
            poisoned,
            notes=_notes(silhouettes),
        )
        return _with_pictures(found, images)

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
        """The images, the labels of ``members``, and which of those are poisoned, where that is known."""
        dataset = data.dataset
        assert dataset.images is not None  # checked by the caller
        labels = dataset.labels[members].copy()
        if self.trigger is None:
            if data.backdoor is None:
                return dataset.images, labels, None
            planted = data.backdoor.poison(dataset, data.splits.members)
            return planted.images, planted.labels[members], np.isin(members, planted.indices)
        trigger = self.trigger
        trigger.blend(*dataset.image_shape)  # tells what does not fit
        count = max(1, round(self.rate * len(members)))
        order = shuffled(len(members), "activation clustering poison", seed)
        poisoned = np.zeros(len(members), dtype=bool)
        for chosen in _chunks(order):  # of images that the trigger sends elsewhere
            if poisoned.sum() >= count:
                break
            stamped = client.outputs(trigger.apply_trigger(dataset.batch(members[chosen]))).argmax(dim=1).numpy()
            works = np.flatnonzero(stamped != labels[chosen])[: count - int(poisoned.sum())]
            poisoned[chosen[works]] = True
            labels[chosen[works]] = stamped[works]
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
    """What the classifier layer receives for each record, N×D; in pieces that are kept as they are finished."""
    found = []
    for number, chosen in enumerate(_chunks(indices)):

        def compute(chosen: NDArray[np.int64] = chosen) -> Arrays:
            return {"embeddings": client.embeddings(images[torch.from_numpy(chosen)]).numpy()}

        path = None if folder is None else folder / f"{what} {number:06d}.npz"
        found.append(client.piece(path, compute))
        report_progress(len(chosen))
    return joined(found)["embeddings"]


def _chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [indices[start : start + PIECE] for start in range(0, len(indices), PIECE)]


def _sample(indices: NDArray[np.int64], most: int, purpose: str, seed: int) -> NDArray[np.int64]:
    return np.sort(indices[shuffled(len(indices), f"activation clustering {purpose}", seed)[:most]])


def _notes(silhouettes: NDArray[np.float64]) -> tuple[str, ...]:
    missing = int(np.isnan(silhouettes).sum())
    if not missing:
        return ()
    return (
        f"{missing} of {len(silhouettes)} classes have fewer than {FEWEST_RECORDS} training records or {FEWEST_CLEAN} "
        "clean images and were not divided.",
    )


def _with_pictures(found: Clusters, images: Images) -> Clusters:
    """The same with pictures of both clusters of the classes with the lowest p-values."""
    which, p_values, _ = found.judged()
    divided = np.flatnonzero(~np.isnan(found.silhouettes))
    rows, names = [], []
    for k in divided[np.argsort(p_values[divided], kind="stable")][:PICTURED_CLASSES].tolist():
        for mine, words in ((True, "avoided"), (False, "other")):
            of_class = found.labels == found.classes[k]
            chosen = found.indices[of_class & ((found.owner == which[k]) == mine)][:PICTURED_RECORDS]
            if not len(chosen):
                continue
            shown = images[torch.from_numpy(chosen)]
            blank = shown.new_zeros(PICTURED_RECORDS - len(shown), *shown.shape[1:])
            rows.append(torch.cat([shown, blank]).numpy())
            names.append(f"{found.names[k]}, {words}")
    if not rows:
        return found
    return Clusters(**{**vars(found), "pictures": np.stack(rows), "rows": tuple(names)})
