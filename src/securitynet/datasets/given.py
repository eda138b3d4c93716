"""Datasets in any form: a reference, a loaded dataset, or objects of other libraries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute, ImageDataset, Images
from securitynet.datasets.in_memory import ObjectData, dataset_from_objects
from securitynet.datasets.loading import load
from securitynet.datasets.members import Stated, with_members
from securitynet.datasets.ordering import sample_stratified
from securitynet.errors import ConfigurationError, DatasetError

_OF_FILES = ("channels", "size", "resize", "crop", "interpolation", "image_column", "label_column", "root")


def load_given(
    train: Any,
    test: Any = None,
    *,
    members: Stated | None = None,
    non_members: Stated | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    **options: Any,
) -> ObjectData:
    """Load a dataset, or its training and its test part, in any form.

    Args:
        train: A reference (a name, ``folder:PATH``, ``parquet:PATH``), a loaded dataset, or an object as
            `dataset_from_objects` takes it.
        test: The same; None if ``train`` has both parts, or ``members`` are stated.
        members: See `dataset_from_objects`.
        non_members: Likewise.
        mean: Likewise, for objects.
        std: Likewise.
        class_names: Likewise.
        name: Likewise.
        limit: Keep at most this many records of each part: a fixed random choice that keeps the class shares.
        cache: Folder for decoded images, for references.
        **options: How files are read, for references; see `securitynet.datasets.load`.

    Returns:
        The dataset, and the preprocessing that the objects' transforms state.

    Raises:
        SecurityNetError: See `securitynet.datasets.load` and `dataset_from_objects`.
        ConfigurationError: If an option has no effect.
    """
    if test is None and isinstance(train, str | os.PathLike):
        loaded = load(_reference(train), members=members, non_members=non_members, limit=limit, cache=cache, **options)
        _refuse({"mean": mean, "std": std, "class_names": class_names, "name": name}, "a dataset that is loaded")
        return ObjectData(loaded, None)
    parts = [part for part in (train, test) if part is not None]
    if not any(isinstance(part, str | os.PathLike) for part in parts):
        _refuse({key: options.get(key) for key in _OF_FILES}, "images that are given as objects")
    opened = [
        load(_reference(part), cache=cache, **options) if isinstance(part, str | os.PathLike) else part
        for part in parts
    ]
    if len(opened) == 1 and isinstance(opened[0], ImageDataset):
        _refuse({"mean": mean, "std": std, "class_names": class_names, "name": name}, "a dataset that is loaded")
        return ObjectData(limit_records(_stated(opened[0], members, non_members), limit), None)
    data = dataset_from_objects(
        opened[0],
        opened[1] if len(opened) > 1 else None,
        members=members,
        non_members=non_members,
        mean=mean,
        std=std,
        class_names=class_names,
        name=name,
    )
    return replace(data, dataset=limit_records(data.dataset, limit))


def _reference(given: str | os.PathLike[str]) -> str:
    """A reference, or the one of a path that is given as an object."""
    if isinstance(given, str):
        return given
    path = Path(given)
    return f"{'parquet' if next(path.glob('*.parquet'), None) else 'folder'}:{path}"


def limit_records(dataset: ImageDataset, limit: int | None) -> ImageDataset:
    """A dataset with at most ``limit`` records of each part, chosen as `securitynet.datasets.load` does.

    Raises:
        ConfigurationError: If the limit can't hold a record of each class of a part.
    """
    if limit is None:
        return dataset
    if limit < 1:
        raise ConfigurationError(f"The limit of records a part must be at least 1, not {limit}.")
    selected = []
    for part, unsorted in dataset.parts.items():
        indices = np.sort(unsorted)
        classes = len(np.unique(dataset.labels[indices]))
        if limit < classes:
            raise ConfigurationError(
                f"A limit of {limit} records cannot hold all {classes} classes of the {part} part of "
                f"{dataset.reference}.",
                hint=f"Use a limit of {classes} or more.",
            )
        if limit < len(indices):
            indices = indices[sample_stratified(dataset.labels[indices], limit, "limit", part)]
        selected.append(indices)
    chosen = np.unique(np.concatenate(selected)).astype(np.int64)
    if len(chosen) == len(dataset):
        return dataset
    names = dataset.record_names
    return replace(
        dataset,
        images=None if dataset.images is None else _select(dataset.images, chosen),
        labels=dataset.labels[chosen],
        parts={
            part: np.flatnonzero(np.isin(chosen, indices)).astype(np.int64) for part, indices in dataset.parts.items()
        },
        attributes={
            name: Attribute(attribute.values[chosen], attribute.names) for name, attribute in dataset.attributes.items()
        },
        content_digest=None,
        record_names=None if names is None else [names[int(index)] for index in chosen],
    )


class SelectedImages:
    """Some of the images of a dataset, fetched when they are wanted.

    Args:
        images: Of the whole dataset.
        chosen: Which of them, sorted.
    """

    def __init__(self, images: Images, chosen: NDArray[np.int64]) -> None:
        self._images = images
        self._chosen = torch.from_numpy(chosen)
        self.shape: tuple[int, ...] = (len(chosen), *images.shape[1:])

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8, len(indices)×C×H×W."""
        return self._images[self._chosen[indices]]


def _select(images: Images, chosen: NDArray[np.int64]) -> Images:
    if isinstance(images, torch.Tensor):
        return images[torch.from_numpy(chosen)]
    return SelectedImages(images, chosen)


def _stated(dataset: ImageDataset, members: Stated | None, non_members: Stated | None) -> ImageDataset:
    if members is None:
        if non_members is not None:
            raise ConfigurationError("non_members is given without members.", hint="State the members as well.")
        return dataset
    if dataset.members_stated:
        raise DatasetError(f"Members of {dataset.reference} are stated already.", hint="State them only once.")
    return with_members(dataset, members, non_members)


def _refuse(options: dict[str, Any], what: str) -> None:
    """Raise `ConfigurationError` for an option that is given and has no effect."""
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"{name} has no effect on {what}.",
                hint="Let the dataset's own transform bring images into their form."
                if name in _OF_FILES
                else "It is for torch datasets, arrays and datasets of Hugging Face.",
            )
