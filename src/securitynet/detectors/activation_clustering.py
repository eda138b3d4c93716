"""Activation clustering: poisoned training records activate the network differently from the others of their class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.base import Images
from securitynet.datasets.ordering import shuffled
from securitynet.detectors._activation_clustering.clusters import Clusters, Reduction, avoidance, divide
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
"""Smallest number of training records with which a class is clustered."""

FEWEST_CLEAN = 5
"""Smallest number of clean images with which a class is clustered."""

PIECE = 512
"""Number of records whose activations are computed and stored together."""

PICTURED_CLASSES = 3
PICTURED_RECORDS = 8


class ActivationClustering(Detector):
    """Divides the training records of each class into two clusters, and tests whether clean images avoid one of them.

    Chen et al., "Detecting backdoor attacks on deep neural networks by activation clustering" (2019). It needs the
    target's training data, including the poisoned records, and no search for a trigger. It reports two verdicts: the
    paper's rule (silhouette and size of the smaller cluster), which also flags clean classes with two kinds of images;
    and a p-value based on clean images outside the training set (`securitynet.metrics.clusters.foreign`), which
    contain the same kinds of images but no poisoned ones.

    Attributes:
        records: Largest number of training records to inspect.
        held_out: Largest number of clean images to compare with.
        dims: Number of components that activations are reduced to.
        reduction: ``ica`` as in the paper, ``pca``, or ``both``: each class is divided in both ways, and the division
            that clean images avoid more clearly counts, with its p-value doubled. Which of them separates poisoned
            records depends on the trigger: principal components missed blended and warped ones, and independent
            components hid a part of those with a patch.
        trigger: A known trigger, to measure detection: it is applied to the share ``rate`` of the training records,
            which are labelled as the target predicts them, as its trainer would have done. For a target trained with a
            known backdoor, its poisoned training set is used by default.
        rate: See ``trigger``.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = Clusters
    costs: ClassVar[str | None] = "computes and clusters the activations of thousands of training records"

    records: int = Field(default=10_000, ge=1, description="Largest number of training records to inspect.")
    held_out: int = Field(default=5_000, ge=1, description="Largest number of clean images to compare with.")
    dims: int = Field(default=10, ge=1, description="Components that activations are reduced to.")
    reduction: Reduction | Literal["both"] = Field(default="both", description="pca, ica as in the paper, or both.")
    trigger: Trigger | None = Field(default=None, description="A known trigger: FILE.npz, or size, corner, value.")
    rate: float = Field(default=0.1, gt=0, lt=1, description="Share of records that the trigger is applied to.")

    @property
    def _reductions(self) -> tuple[Reduction, ...]:
        return ("pca", "ica") if self.reduction == "both" else (self.reduction,)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Clusters:
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
            seed = derived_seed(context.seed, "activation clustering", label)
            divisions = [
                divide(activations[mine], beside[other], reduction=reduction, dims=self.dims, seed=seed)
                for reduction in self._reductions
            ]
            division = min(divisions, key=avoidance)
            owner[mine], silhouettes[k] = division.owner, division.silhouette
            counts[0, k] = np.bincount(division.owner, minlength=2)
            counts[1, k] = np.bincount(division.clean, minlength=2)
        clusters = Clusters(
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
            reductions=len(self._reductions),
        )
        return _with_pictures(clusters, images)

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


def _notes(silhouettes: NDArray[np.float64]) -> tuple[str, ...]:
    missing = int(np.isnan(silhouettes).sum())
    if not missing:
        return ()
    return (
        f"{missing} of {len(silhouettes)} classes have fewer than {FEWEST_RECORDS} training records or {FEWEST_CLEAN} "
        "clean images and were not clustered.",
    )


def _with_pictures(clusters: Clusters, images: Images) -> Clusters:
    """Add pictures of both clusters of the classes with the lowest p-values."""
    which, p_values, _ = clusters.judged()
    divided = np.flatnonzero(~np.isnan(clusters.silhouettes))
    rows, names = [], []
    for k in divided[np.argsort(p_values[divided], kind="stable")][:PICTURED_CLASSES].tolist():
        for mine, words in ((True, "avoided"), (False, "other")):
            of_class = clusters.labels == clusters.classes[k]
            chosen = clusters.indices[of_class & ((clusters.owner == which[k]) == mine)][:PICTURED_RECORDS]
            if not len(chosen):
                continue
            shown = images[torch.from_numpy(chosen)]
            blank = shown.new_zeros(PICTURED_RECORDS - len(shown), *shown.shape[1:])
            rows.append(torch.cat([shown, blank]).numpy())
            names.append(f"{clusters.names[k]}, {words}")
    if not rows:
        return clusters
    return Clusters(**{**vars(clusters), "pictures": np.stack(rows), "rows": tuple(names)})
