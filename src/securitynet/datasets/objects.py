"""Items of datasets that are given as objects, with one reader for all kinds: torch, arrays, Hugging Face."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.pipelines import Pipeline, read_pipeline
from securitynet.errors import DatasetError, SecurityNetError
from securitynet.files import make_printable

_IMAGES = ("image", "img", "images", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "target", "y", "class")
_HINT = "Give a torch dataset of (image, label), a pair (images, labels) of arrays, or a Hugging Face dataset."


def _keep(value: Any) -> Any:
    return value


@dataclass(frozen=True, eq=False)
class Items:
    """Images and labels by number.

    Attributes:
        part: ``train`` or ``test``, for messages and names of records.
        name: Name of the object.
        get: Returns the item with a number, as (image, label).
        count: Number of items.
        pipeline: Its transform, decomposed; None if it has no known transform.
        without: The same items before that transform; None if they are not accessible.
        class_names: In the order of the labels; None if the object does not state them.
        files: Names of the records; None if they have none.
    """

    part: str
    name: str
    get: Callable[[int], tuple[Any, Any]]
    count: int
    pipeline: Pipeline | None = None
    without: Callable[[int], tuple[Any, Any]] | None = None
    class_names: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.count

    def stripped(self) -> Items:
        """The items before their transform."""
        return self if self.without is None else replace(self, get=self.without)

    def describe(self, index: int) -> str:
        """Name of an item, for messages."""
        return f"Item {index} of {self.part}"

    def record_names(self) -> Iterable[str]:
        """Names of the records in results."""
        return self.files or (f"{self.part}/{index}" for index in range(self.count))

    def read(self, index: int) -> tuple[Any, Any]:
        """Image and label of an item.

        Raises:
            DatasetError: If the object fails to return it.
        """
        try:
            return self.get(index)
        except SecurityNetError:
            raise
        except Exception as error:  # the user's own code runs here
            raise DatasetError(f"{self.describe(index)} can't be read: {type(error).__name__}: {error}.") from error


def open_items(value: Any, part: str) -> Items:
    """Make a reader for an object.

    Raises:
        DatasetError: If it is of no accepted kind, or empty.
    """
    if isinstance(value, torch.utils.data.DataLoader):
        value = value.dataset
    if isinstance(value, ImageDataset):
        items = _open_loaded(value, part)
    elif isinstance(value, tuple | list) and len(value) == 2:
        items = _open_pair(value[0], value[1], part)
    elif hasattr(value, "features") and hasattr(value, "column_names"):
        items = _open_hugging_face(value, part)
    elif hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping):
        items = _open_torch(value, part)
    else:
        kind = "a stream without a length" if hasattr(value, "__next__") else type(value).__name__
        raise DatasetError(f"{part} is {kind}, which is not a dataset of images.", hint=_HINT)
    if not len(items):
        raise DatasetError(f"{part} is empty.")
    return items


def _open_loaded(dataset: ImageDataset, part: str) -> Items:
    """A loaded dataset: its part of that name, or all of it where it has none."""
    indices = dataset.parts.get(part)
    records = np.arange(len(dataset), dtype=np.int64) if indices is None else np.sort(indices)
    if dataset.images is None:
        raise DatasetError(f"{part} holds recorded outputs and no images.", hint="Give its images.")

    def get(index: int) -> tuple[Any, Any]:
        return dataset.batch(records[index : index + 1])[0], int(dataset.labels[records[index]])

    names = tuple(dataset.get_record_name(int(record)) for record in records)
    return Items(part, dataset.reference, get, len(records), class_names=dataset.class_names, files=names)


def _open_pair(images: Any, labels: Any, part: str) -> Items:
    try:
        count, others = len(images), len(labels)
    except TypeError as error:
        raise DatasetError(
            f"{part} is a pair of {type(images).__name__} and {type(labels).__name__}.", hint=_HINT
        ) from error
    if count != others:
        raise DatasetError(f"{part} has {count} images and {others} labels.", hint=_HINT)
    if hasattr(images, "ndim") and images.ndim not in (3, 4):
        raise DatasetError(
            f"The images of {part} have the shape {tuple(images.shape)}; N×H×W, N×H×W×C or N×C×H×W is expected."
        )
    return Items(part, "arrays", lambda index: (images[index], labels[index]), count)


def _open_hugging_face(dataset: Any, part: str) -> Items:
    features = dataset.features
    image = _column(features, "Image", _IMAGES, part)
    label = _column(features, "ClassLabel", _LABELS, part)
    names = getattr(features[label], "names", None)
    if hasattr(dataset, "with_format"):
        dataset = dataset.with_format(None)  # the images themselves, whatever format or transform was set

    def get(index: int) -> tuple[Any, Any]:
        row = dataset[index]
        return row[image], row[label]

    name = getattr(getattr(dataset, "info", None), "dataset_name", None) or type(dataset).__name__
    return Items(part, str(name), get, len(dataset), class_names=None if names is None else tuple(map(str, names)))


def _column(features: Mapping[str, Any], kind: str, usual: tuple[str, ...], part: str) -> str:
    declared = [name for name, feature in features.items() if type(feature).__name__ == kind]
    named = [name for name in usual if name in features]
    candidates = [name for name in named if name in declared] or declared or named
    if len(declared) > 1 and named[:1] != candidates[:1]:
        candidates = []
    if not candidates:
        raise DatasetError(
            f"{part} has the columns {', '.join(features)}: which of them are the {usual[0]}s is unclear.",
            hint=f"Rename one to {usual[0]} with rename_column.",
        )
    return candidates[0]


def _open_torch(dataset: Any, part: str) -> Items:
    plain, transforms = _strip(dataset)
    pipelines = [read_pipeline(transform) for transform in transforms]
    pipeline = pipelines[0] if pipelines else None
    for other in pipelines[1:]:
        if (other.normalisation, other.describe_shaping()) != (
            pipelines[0].normalisation,
            pipelines[0].describe_shaping(),
        ):
            pipeline = Pipeline(unread="of several joined datasets, which differ,", random=other.random)
    return Items(
        part,
        _name(dataset),
        lambda index: _pair(dataset[index], part),
        len(dataset),
        pipeline,
        (lambda index: _pair(plain[index], part)) if pipeline is not None else None,
        _classes(dataset),
        _files(dataset),
    )


def _pair(item: Any, part: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image = next((item[name] for name in _IMAGES if name in item), None)
        label = next((item[name] for name in _LABELS if name in item), None)
        if image is not None and label is not None:
            return image, label
        raise DatasetError(f"An item of {part} has the fields {', '.join(map(str, item))}.", hint=_HINT)
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DatasetError(f"An item of {part} is {type(item).__name__} and no pair of image and label.", hint=_HINT)


def _strip(dataset: Any) -> tuple[Any, list[Any]]:
    """A copy of a dataset without its image transforms, and these transforms; the user's object is not changed."""
    if isinstance(dataset, torch.utils.data.Subset):
        inner, transforms = _strip(dataset.dataset)
        return torch.utils.data.Subset(inner, dataset.indices), transforms
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        stripped = [_strip(one) for one in dataset.datasets]
        return torch.utils.data.ConcatDataset([one for one, _ in stripped]), [
            t for _, removed in stripped for t in removed
        ]
    transform = getattr(dataset, "transform", None)
    if transform is None or not callable(transform):
        return dataset, []
    plain = copy.copy(dataset)
    plain.transform = _keep
    joint = getattr(dataset, "transforms", None)
    if joint is not None:  # torchvision's pair of transforms, of image and of label
        plain.transforms = copy.copy(joint)
        plain.transforms.transform = _keep
    return plain, [transform]


def _name(dataset: Any) -> str:
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    return type(dataset).__name__


def _classes(dataset: Any) -> tuple[str, ...] | None:
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        dataset = dataset.datasets[0]
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _files(dataset: Any) -> tuple[str, ...] | None:
    """Paths of the images below the folder of an `ImageFolder` or similar, preceded by the name of that folder."""
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _files(dataset.dataset)
        return None if inner is None else tuple(inner[int(index)] for index in dataset.indices)
    samples, root = getattr(dataset, "samples", None), getattr(dataset, "root", None)
    if not isinstance(samples, list) or root is None or len(samples) != len(dataset):
        return None
    try:
        folder = Path(root)
        return tuple(
            make_printable(f"{folder.resolve().name}/{Path(sample[0]).relative_to(folder).as_posix()}")
            for sample in samples
        )
    except (TypeError, ValueError, IndexError):
        return None
