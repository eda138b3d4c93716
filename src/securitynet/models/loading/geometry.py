"""Determine the input size and crop of a network whose owner did not state them.

Other weights in a library's network were seldom trained with the input size that the library states for its own
weights, but sometimes they were. Labelled images decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.models.loading.normalization import mix_indices
from securitynet.models.sources.preprocessing import CONVENTIONS, Normalization, Preprocessing
from securitynet.models.targets.target import Target

_SAMPLE = 96
_LEVEL = 0.01
_USUAL = ("imagenet", "half", "none")


@dataclass(frozen=True)
class Geometry:
    """How images are resized and cropped.

    Attributes:
        preprocessing: Size, crop and interpolation; `choose_normalization` chooses the normalisation.
        note: A sentence for the report.
    """

    preprocessing: Preprocessing
    note: str


def choose_geometry(
    target: Target, dataset: ImageDataset, stated: Preprocessing, normalization: Normalization | None = None
) -> Geometry | None:
    """Choose between the images' own size and the one that a library states for its weights; None if both are the same.

    The library's size is chosen only if accuracy is significantly higher with it, or if the network accepts no other.

    Args:
        target: The target; its preprocessing is replaced for the trial.
        dataset: A dataset with labelled images.
        stated: Preprocessing that the library states for its own weights.
        normalization: The normalisation, if known; otherwise the library's and some common ones are tried.
    """
    if stated.input_size is None or tuple(dataset.image_shape[1:]) == stated.input_size:
        return None
    size = stated.input_size
    plain = Preprocessing()
    cut = plain.model_copy(
        update={"input_size": size, "crop_share": stated.crop_share, "interpolation": stated.interpolation}
    )
    squeezed = cut.model_copy(update={"crop_share": None})
    normalizations = [normalization] if normalization is not None else _usual(stated)
    indices = mix_indices(dataset, _SAMPLE)
    tried = {
        words: (geometry, _best(target, dataset, indices, geometry, normalizations))
        for words, geometry in (
            ("their own size", plain),
            (f"{size[0]}×{size[1]}, squeezed", squeezed),
            (f"{size[0]}×{size[1]}, cut as the library does", cut),
        )
    }
    working = {words: (geometry, right) for words, (geometry, right) in tried.items() if right is not None}
    if not working:
        return None
    best = next(iter(working))
    for words, (_, right) in working.items():
        if _is_better(right, working[best][1]):
            best = words
    shares = ", ".join(f"{words} {right.mean():.0%}" for words, (_, right) in working.items())
    return Geometry(
        working[best][0], f"size of images: {best}, tried on {len(indices)} images ({shares}); --input-size overrides."
    )


def _usual(stated: Preprocessing) -> list[Normalization]:
    usual = [Normalization(*CONVENTIONS[name]) for name in _USUAL]
    return list(dict.fromkeys([Normalization(stated.mean, stated.std), *usual]))


def _best(
    target: Target,
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    geometry: Preprocessing,
    normalizations: list[Normalization],
) -> NDArray[np.bool_] | None:
    """Per image, whether it is classified as its label under the best of some normalisations; None if none works."""
    best: NDArray[np.bool_] | None = None
    channels = dataset.image_shape[0]
    for normalization in normalizations:
        if len(normalization.mean) not in (0, 1, channels):
            continue
        preprocessing = geometry.normalized_by(normalization)
        view = Target(target.backend, head=target.head, preprocessing=preprocessing, query_counter=target.query_counter)
        step = view.batch_size
        try:
            parts = [indices[at : at + step] for at in range(0, len(indices), step)]
            predicted = np.concatenate([view.labels(dataset.batch(part)).numpy() for part in parts])
        except TargetError:
            continue
        right: NDArray[np.bool_] = predicted == dataset.labels[indices]
        if best is None or right.sum() > best.sum():
            best = right
    return best


def _is_better(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    return better > worse and bool(scipy.stats.binomtest(better, better + worse).pvalue < _LEVEL)
