"""Two clusters of the activations of each class, and the verdicts based on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.methods.output import Gallery, Output
from securitynet.metrics import clusters
from securitynet.records import Measurement

Reduction = Literal["ica", "pca"]

MOST_COMPARED = 2000
"""Number of records of a class from which the silhouette is computed."""

_INTEGER = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Division:
    """A class divided into two clusters.

    Attributes:
        owner: Cluster of each training record, N, 0 or 1.
        clean: Cluster of each clean image, M.
        silhouette: Mean silhouette of the training records.
    """

    owner: NDArray[np.int64]
    clean: NDArray[np.int64]
    silhouette: float


def divide(
    training: NDArray[np.float32], clean: NDArray[np.float32], *, reduction: Reduction, dims: int, seed: int
) -> Division:
    """Reduce activations and divide them with k-means, both fitted to the training records (Chen et al., algorithm 2).

    Args:
        training: Activations of training records, N×D.
        clean: Activations of clean images, M×D, which are assigned to the nearer centre.
        reduction: Independent or principal components.
        dims: Number of components.
        seed: Seed of both steps.
    """
    state = seed & _INTEGER
    varying = training.std(axis=0) > 0  # constant units carry no information and cannot be whitened
    components = min(dims, int(varying.sum()), len(training) - 1)
    # Listing detectors imports this module; only those who use it wait for scikit-learn.
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import silhouette_score

    if components < 1:
        return Division(np.zeros(len(training), np.int64), np.zeros(len(clean), np.int64), -1.0)
    first, second = training[:, varying].astype(np.float64), clean[:, varying].astype(np.float64)
    # Whitening would amplify directions with almost no variance to the size of the others.
    spread = np.linalg.svd(first - first.mean(axis=0), compute_uv=False)
    components = max(1, min(components, int((spread > 1e-4 * spread[0]).sum())))
    if reduction == "ica":
        reducer = FastICA(n_components=components, whiten="unit-variance", max_iter=500, tol=1e-3, random_state=state)
    else:
        reducer = PCA(n_components=components, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # components that have not fully converged serve as well
        reduced = reducer.fit_transform(first)
        model = KMeans(n_clusters=2, n_init=10, random_state=state).fit(reduced)
    owner = model.labels_.astype(np.int64)
    put = model.predict(reducer.transform(second)).astype(np.int64) if len(clean) else np.empty(0, np.int64)
    if len(np.unique(owner)) < 2:
        return Division(owner, put, -1.0)
    size = MOST_COMPARED if len(reduced) > MOST_COMPARED else None
    try:
        silhouette = float(silhouette_score(reduced, owner, sample_size=size, random_state=state))
    except ValueError:  # the sample contains only one of the clusters
        silhouette = float(silhouette_score(reduced, owner))
    return Division(owner, put, silhouette)


def measure_avoidance(division: Division) -> float:
    """p-value of the cluster that clean images avoid more (`securitynet.metrics.clusters.find_foreign_clusters`)."""
    counts = [np.bincount(rows, minlength=2)[None] for rows in (division.owner, division.clean)]
    return float(clusters.find_foreign_clusters(*counts)[1][0])


@dataclass(frozen=True, eq=False)
class Clusters(Output):
    """The clusters of the activations of the training records.

    Attributes:
        indices: Training records, N int64.
        labels: Classes that they were trained with, N.
        owner: Cluster of each record within its class, N: 0, 1, or -1 if the class was not clustered.
        classes: The classes, K int64.
        names: Their names, K.
        silhouettes: Mean silhouettes, K; NaN for classes that were not clustered.
        training: Number of training records in both clusters of each class, K×2.
        clean: Number of clean images in them, K×2.
        poisoned: Whether each record is poisoned, N; None if unknown.
        pictures: Pictures, R×Q×C×H×W uint8.
        rows: Description of each row of pictures, R.
        notes: Notes, which are added to each measurement.
        reductions: Number of divisions of each class, of which the one with the lowest p-value is recorded.
    """

    headline: ClassVar[tuple[str, ...]] = ("foreign-p-value", "foreign-classes", "detection-rate", "suspect-records")

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    owner: NDArray[np.int64]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    silhouettes: NDArray[np.float64]
    training: NDArray[np.int64]
    clean: NDArray[np.int64]
    poisoned: NDArray[np.bool_] | None = None
    pictures: NDArray[np.uint8] | None = None
    rows: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reductions: int = 1

    def judged(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return the foreign cluster of each class, its adjusted p-value, K, and whether each record is suspect, N."""
        which, raw = clusters.find_foreign_clusters(self.training, self.clean)
        chosen = np.minimum(raw * self.reductions, 1.0)  # Bonferroni's correction within a class, Holm's over classes
        p_values = clusters.correct_for_clusters(chosen, int((~np.isnan(self.silhouettes)).sum()))
        at = np.searchsorted(self.classes, self.labels)
        suspect = (self.owner == which[at]) & (p_values[at] < clusters.ALPHA)
        return which, p_values, np.asarray(suspect)

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        optional = {"poisoned": self.poisoned, "pictures": self.pictures}
        texts = {"names": self.names, "rows": self.rows, "notes": self.notes}
        return {
            "indices": self.indices,
            "labels": self.labels,
            "owner": self.owner,
            "classes": self.classes,
            "silhouettes": self.silhouettes,
            "training": self.training,
            "clean": self.clean,
            **({"reductions": np.asarray(self.reductions)} if self.reductions > 1 else {}),
            **{name: values for name, values in optional.items() if values is not None},
            **{name: np.asarray(words, dtype=np.str_) for name, words in texts.items() if words},
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Clusters:
        texts = {name: tuple(str(word) for word in arrays.get(name, ())) for name in ("names", "rows", "notes")}
        return cls(
            arrays["indices"],
            arrays["labels"],
            arrays["owner"],
            arrays["classes"],
            texts["names"],
            arrays["silhouettes"],
            arrays["training"],
            arrays["clean"],
            arrays.get("poisoned"),
            arrays.get("pictures"),
            texts["rows"],
            texts["notes"],
            int(arrays.get("reductions", 1)),
        )

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute both verdicts on classes and the share of suspect records, and detection rates if poison is known."""
        _, p_values, suspect = self.judged()
        return clusters.measure_clusters(
            self.silhouettes, p_values, self.training, suspect, self.poisoned, level=level, notes=self.notes
        )

    def galleries(self) -> list[Gallery]:
        """Show records of both clusters of the most suspicious classes."""
        if self.pictures is None or not len(self.pictures):
            return []
        caption = "Training records of the most suspicious classes: those of the cluster that clean images avoid, "
        columns = tuple(str(number) for number in range(1, self.pictures.shape[1] + 1))
        return [Gallery("Two clusters", caption + "and the others.", self.pictures, self.rows, columns)]
