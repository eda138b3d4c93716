"""Two clusters of the activations of each class, and what they say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score

from securitynet.methods.base import Gallery, Output
from securitynet.metrics import clusters
from securitynet.records import Measurement

Reduction = Literal["ica", "pca"]

MOST_COMPARED = 2000
"""Records of a class whose distances to all others the silhouette is computed from."""

_INTEGER = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Division:
    """A class in two.

    Attributes:
        owner: Cluster of each training record, N, 0 or 1.
        clean: Cluster of each clean image, M.
        silhouette: Of the training records.
    """

    owner: NDArray[np.int64]
    clean: NDArray[np.int64]
    silhouette: float


def divide(
    training: NDArray[np.float32], clean: NDArray[np.float32], *, reduction: Reduction, dims: int, seed: int
) -> Division:
    """Reduce activations, learned on training records alone, and divide them by k-means (Chen et al., algorithm 2).

    Args:
        training: N×D.
        clean: M×D, put into the cluster with the nearer centre.
        reduction: Independent or principal components.
        dims: How many.
        seed: Of both steps.
    """
    state = seed & _INTEGER
    varying = training.std(axis=0) > 0  # units that are dead on this class say nothing, and have no inverse
    kept = min(dims, int(varying.sum()), len(training) - 1)
    if kept < 1:
        return Division(np.zeros(len(training), np.int64), np.zeros(len(clean), np.int64), -1.0)
    first, second = training[:, varying].astype(np.float64), clean[:, varying].astype(np.float64)
    # Directions in which next to nothing varies would be blown up to the size of the others by whitening.
    spread = np.linalg.svd(first - first.mean(axis=0), compute_uv=False)
    kept = max(1, min(kept, int((spread > 1e-4 * spread[0]).sum())))
    if reduction == "ica":
        reducer = FastICA(n_components=kept, whiten="unit-variance", max_iter=500, tol=1e-3, random_state=state)
    else:
        reducer = PCA(n_components=kept, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # components that still turn a little divide as well
        reduced = reducer.fit_transform(first)
        model = KMeans(n_clusters=2, n_init=10, random_state=state).fit(reduced)
    owner = model.labels_.astype(np.int64)
    put = model.predict(reducer.transform(second)).astype(np.int64) if len(clean) else np.empty(0, np.int64)
    if len(np.unique(owner)) < 2:
        return Division(owner, put, -1.0)
    size = MOST_COMPARED if len(reduced) > MOST_COMPARED else None
    try:
        silhouette = float(silhouette_score(reduced, owner, sample_size=size, random_state=state))
    except ValueError:  # the sample missed one of the clusters
        silhouette = float(silhouette_score(reduced, owner))
    return Division(owner, put, silhouette)


@dataclass(frozen=True, eq=False)
class Clusters(Output):
    """What clustering the activations of training records found.

    Attributes:
        indices: Training records, N int64.
        labels: The classes they were trained as, N.
        owner: Cluster of each within its class, N: 0, 1, or -1 where the class was not divided.
        classes: K int64.
        names: Of the classes, K.
        silhouettes: K; NaN where a class was not divided.
        training: Training records in each class's clusters, K×2.
        clean: Clean images there, K×2.
        poisoned: The truth, N; None if it is not known.
        pictures: R×Q×C×H×W uint8.
        rows: What each row of pictures shows, R.
        notes: Go to the note of each measurement.
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

    def judged(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Of each class the foreign cluster and its adjusted p-value, K; and whether each record is suspect, N."""
        which, raw = clusters.foreign(self.training, self.clean)
        p_values = clusters.adjusted(raw, int((~np.isnan(self.silhouettes)).sum()))
        at = np.searchsorted(self.classes, self.labels)
        suspect = (self.owner == which[at]) & (p_values[at] < clusters.ALPHA)
        return which, p_values, np.asarray(suspect)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`."""
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
            **{name: values for name, values in optional.items() if values is not None},
            **{name: np.asarray(words, dtype=np.str_) for name, words in texts.items() if words},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Clusters:
        """See `Output.from_arrays`."""
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
        )

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Both verdicts on classes, and the share of suspect records; with the truth, how many are found."""
        _, p_values, suspect = self.judged()
        return clusters.measure(
            self.silhouettes, p_values, self.training, suspect, self.poisoned, level=level, notes=self.notes
        )

    def galleries(self) -> list[Gallery]:
        """Records of both clusters of the most suspicious classes."""
        if self.pictures is None or not len(self.pictures):
            return []
        caption = "Training records of the most suspicious classes: those of the cluster that clean images avoid, "
        columns = tuple(str(number) for number in range(1, self.pictures.shape[1] + 1))
        return [Gallery("Two clusters", caption + "and the others.", self.pictures, self.rows, columns)]
