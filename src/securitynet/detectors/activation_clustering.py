"""Activation clustering: poisoned training records activate the network differently from the others of their class."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.base import Images
from securitynet.detectors._activation_clustering.clusters import Clusters, Reduction, divide, measure_avoidance
from securitynet.detectors._training_data import FEWEST_CLEAN, FEWEST_RECORDS, TrainingDataDetector
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed

PICTURED_CLASSES = 3
PICTURED_RECORDS = 8


class ActivationClustering(TrainingDataDetector):
    """Divides the training records of each class into two clusters, and tests whether clean images avoid one of them.

    Chen et al., "Detecting backdoor attacks on deep neural networks by activation clustering" (2019). It needs the
    target's training data, including the poisoned records, and no search for a trigger. It reports two verdicts: the
    paper's rule (silhouette and size of the smaller cluster), which also flags clean classes with two kinds of images;
    and a p-value (`securitynet.metrics.clusters.find_foreign_clusters`) based on clean images outside the training set,
    which contain the same kinds of images but no poisoned ones.

    Attributes:
        dims: Number of components that activations are reduced to.
        reduction: ``ica`` as in the paper, ``pca``, or ``both``: each class is divided in both ways, and the division
            that clean images avoid more clearly counts, with its p-value doubled. Which of them separates poisoned
            records depends on the trigger: principal components missed blended and warped ones, and independent
            components hid a part of those with a patch.
    """

    output: ClassVar[type[Output]] = Clusters
    costs: ClassVar[str | None] = "computes and clusters the activations of thousands of training records"

    dims: int = Field(default=10, ge=1, description="Components that activations are reduced to.")
    reduction: Reduction | Literal["both"] = Field(default="both", description="pca, ica as in the paper, or both.")

    @property
    def _reductions(self) -> tuple[Reduction, ...]:
        return ("pca", "ica") if self.reduction == "both" else (self.reduction,)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Clusters:
        dataset = data.dataset
        embedded = self._embed(target, data, context, "Activation clustering")
        members, labels, poisoned = embedded.members, embedded.labels, embedded.poisoned
        classes = np.unique(labels)
        owner = np.full(len(members), -1, dtype=np.int64)
        silhouettes = np.full(len(classes), np.nan)
        counts = np.zeros((2, len(classes), 2), dtype=np.int64)
        for k, label in enumerate(classes.tolist()):
            mine, other = np.flatnonzero(labels == label), np.flatnonzero(dataset.labels[embedded.clean] == label)
            if len(mine) < FEWEST_RECORDS or len(other) < FEWEST_CLEAN:
                continue
            seed = derive_seed(context.seed, "activation clustering", label)
            divisions = [
                divide(embedded.training[mine], embedded.beside[other], reduction=reduction, dims=self.dims, seed=seed)
                for reduction in self._reductions
            ]
            division = min(divisions, key=measure_avoidance)
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
        return _with_pictures(clusters, embedded.images)


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
