"""Datasets given as objects: torch datasets, pairs of arrays, Hugging Face datasets.

Images become uint8 once, as from files, and are identified by their content: cached results for the same images are
reused, whatever object supplied them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset, Images
from securitynet.datasets.class_names import explain_difference, normalize_name
from securitynet.datasets.members import Stated, with_members
from securitynet.datasets.objects import Items, open_items
from securitynet.datasets.pipelines import InputTransform, Pipeline, move_to_input
from securitynet.datasets.values import ShapeChanged, Shaper, Values, choose_values
from securitynet.errors import ConfigurationError, DatasetError

IN_MEMORY_BYTES = 8 << 30
"""Images that would take more than this are fetched from their object at each access."""

Pair = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class ObjectData:
    """A dataset made from objects.

    Attributes:
        dataset: The images, train first, with parts.
        transform: Preprocessing before the model according to the objects' transforms; None if they state none, as for
            plain arrays.
    """

    dataset: ImageDataset
    transform: InputTransform | None


def dataset_from_objects(
    train: Any,
    test: Any = None,
    *,
    members: Stated | None = None,
    non_members: Stated | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
) -> ObjectData:
    """Convert objects to a dataset, and their transforms to the preprocessing of the target.

    Transforms of torchvision are read, not run: Normalize becomes part of ``transform``, random augmentation is left
        out,
    and Resize and CenterCrop become part of ``transform`` if they enlarge images of one shape; otherwise they are
    applied to the images. The transform of ``test`` states how the model is tested; that of ``train`` is used if there
    is no test.

    Args:
        train: A torch dataset (or loader) of (image, label), a pair (images, labels) of arrays or tensors, or a Hugging
            Face dataset. Images are Pillow images, uint8, or floating point in [0, 1]; N×H×W, N×H×W×C or N×C×H×W.
        test: Likewise; None if there is only one part, called ``train`` if ``members`` are stated, else ``all``.
        members: Numbers of records, or a boolean mask, over train and test in that order, or a file that lists them.
            Default: all of ``train``, if there is a test.
        non_members: Likewise; default: all others.
        mean: For normalised images: the mean that was subtracted, one or one per channel.
        std: The deviation by which they were divided.
        class_names: One per class; default: what the objects state, else numbers.
        name: Name of the dataset.

    Returns:
        The dataset, whose fingerprint follows from images, labels and parts, and the transform.

    Raises:
        DatasetError: If there are no such items, the images are normalised already, differ in shape, or the two objects
            disagree.
        ConfigurationError: If mean and deviation are invalid.
    """
    if isinstance(train, ImageDataset) and test is None:
        return ObjectData(_stated(train, members, non_members), None)
    if test is None and isinstance(train, dict) and "train" in train:  # a DatasetDict of Hugging Face
        train, test = train["train"], train.get("test", train.get("validation"))
    undo = _undone(mean, std)
    opened = [open_items(train, "train")] + ([] if test is None else [open_items(test, "test")])
    pipeline, notes = _choose_pipeline(opened, undo is not None)
    raw = [items.stripped() if pipeline is not None else items for items in opened]
    values = choose_values(raw, undo)
    images, raw_labels, transform = _read(raw, values, pipeline)
    if undo is not None:
        transform = (transform or InputTransform()).model_copy(update={"mean": undo[0], "std": undo[1]})
    labels, classes = _number(raw_labels, opened, class_names)
    counts = [len(items) for items in opened]
    train_records = np.arange(counts[0], dtype=np.int64)
    parts = {"train": train_records, "test": np.arange(counts[0], sum(counts), dtype=np.int64)}
    dataset = ImageDataset(
        reference=f"object:{name or opened[0].name}",
        images=images,
        labels=labels,
        class_names=classes,
        parts=parts if test is not None else {"all": train_records},
        record_names=[record for items in opened for record in items.record_names()],
        notes=(*notes, *values.notes),
        members_stated=members is not None,  # before they are known, a class may have no member
    )
    return ObjectData(_stated(dataset, members, non_members), transform)


def _stated(dataset: ImageDataset, members: Stated | None, non_members: Stated | None) -> ImageDataset:
    if members is None:
        if non_members is not None:
            raise ConfigurationError("non_members states the non-members; members must state the members too.")
        return dataset
    return with_members(dataset, members, non_members)


def _undone(mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Pair | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ConfigurationError("To undo a normalisation, both its mean and its std are needed.")
    pair = tuple(tuple(float(v) for v in np.atleast_1d(np.asarray(values))) for values in (mean, std))
    if len(pair[0]) != len(pair[1]) or len(pair[0]) not in (1, 3) or min(pair[1]) <= 0:
        raise ConfigurationError(
            f"The normalisation has the mean {pair[0]} and the deviation {pair[1]}.",
            hint="Give one of each, or one a channel; deviations are positive.",
        )
    return pair[0], pair[1]


def _choose_pipeline(opened: Sequence[Items], undo: bool) -> tuple[Pipeline | None, list[str]]:
    """The transform with which all images are read, and notes; None if items must be used as they are."""
    pipelines = [items.pipeline for items in opened]
    if all(pipeline is None for pipeline in pipelines):
        return None, []
    read = [pipeline or Pipeline() for pipeline in pipelines]
    obstacle = next((pipeline.unread for pipeline in read if pipeline.unread is not None), None)
    undone = undo and any(pipeline.normalisation for pipeline in read)
    if obstacle is not None or undone:
        random = next(((items.part, name) for items, p in zip(opened, read, strict=True) for name in p.random), None)
        if random is not None:
            raise DatasetError(
                f"The transform of {random[0]} holds {random[1]}, which gives another image at each access, and "
                f"{obstacle or 'a normalisation that is to be undone'}, which keeps it from being left out.",
                hint="Give the dataset with the transform by which the model is tested.",
            )
        if obstacle is None:
            return None, []
        return None, [f"The transform {obstacle} can't be read, so the items were taken as it makes them."]
    if len({pipeline.normalisation for pipeline in read}) > 1:
        raise DatasetError(
            "train and test are normalised differently: "
            + ", and ".join(str(pipeline.normalisation or "not at all") for pipeline in read)
            + ".",
            hint="Give both the normalisation with which the model was trained.",
        )
    chosen = read[-1]
    notes = []
    dropped = sorted({name for pipeline in read for name in pipeline.random})
    if dropped:
        notes.append(f"Random transforms are for training and were left out: {', '.join(dropped)}.")
    if len(read) > 1 and not read[0].random_sizes and read[0].describe_shaping() != chosen.describe_shaping():
        notes.append(f"Images of train are shaped as those of test: {chosen.describe_shaping() or 'not at all'}.")
    if chosen.shaping:
        notes.append(f"As the dataset's transform says: {chosen.describe_shaping()}.")
    return chosen, notes


def _read(
    raw: Sequence[Items], values: Values, pipeline: Pipeline | None
) -> tuple[Images, list[Any], InputTransform | None]:
    """Images, original labels, and the transform for the target."""
    transform = None
    if pipeline is not None:
        height, width = values.shape[1:]
        transform = move_to_input(pipeline, height, width)
        if transform is not None:
            with contextlib.suppress(ShapeChanged):  # of several shapes, each is shaped by itself below
                images, raw_labels = _collect(raw, Shaper(values, []))
                _check_random_size(pipeline, images)
                return images, raw_labels, _normalised(transform, pipeline)
        transform = _normalised(InputTransform(), pipeline)
    try:
        images, raw_labels = _collect(raw, Shaper(values, [] if pipeline is None else pipeline.shaping))
    except ShapeChanged as error:
        raise DatasetError(
            f"The images differ in shape: {error}.",
            hint="Let the dataset's transform bring them to one: Resize and CenterCrop, as the model is tested.",
        ) from error
    if pipeline is not None:
        _check_random_size(pipeline, images)
    return images, raw_labels, transform


def _normalised(transform: InputTransform, pipeline: Pipeline) -> InputTransform:
    mean, std = pipeline.normalisation or ((), ())
    return transform.model_copy(update={"mean": mean, "std": std})


def _check_random_size(pipeline: Pipeline, images: Images) -> None:
    shape = tuple(images.shape[-2:])
    other = [size for size in pipeline.random_sizes if size != shape]
    if other and not pipeline.shaping:
        raise DatasetError(
            f"The images are {shape[0]}×{shape[1]}, and only a random crop brings them to {other[0][0]}×{other[0][1]}: "
            "how the model is tested is not known.",
            hint="Give a test dataset with its transform, or the training data with that transform.",
        )


def _collect(raw: Sequence[Items], shape: Shaper) -> tuple[Images, list[Any]]:
    """All images and labels, read once."""
    total = sum(len(items) for items in raw)
    held: NDArray[np.uint8] | None = None
    raw_labels: list[Any] = []
    for items in raw:
        for index in range(len(items)):
            image, label = items.read(index)
            rendered = shape(image, items.describe(index))
            if not raw_labels and total * rendered.size <= IN_MEMORY_BYTES:
                held = np.empty((total, *rendered.shape), dtype=np.uint8)
            if held is not None:
                held[len(raw_labels)] = rendered
            raw_labels.append(label)
    if held is not None:
        return torch.from_numpy(held), raw_labels
    return ObjectImages(raw, shape), raw_labels


class ObjectImages:
    """Images that stay in their objects and are converted at each access.

    Args:
        raw: The objects, one after another.
        shape: Converts their items to uint8 images of one shape.
    """

    def __init__(self, raw: Sequence[Items], shape: Shaper) -> None:
        self._items: list[tuple[Items, int]] = [(items, index) for items in raw for index in range(len(items))]
        self._shaper = shape
        assert shape.shape is not None  # all items have been read once
        self.shape: tuple[int, ...] = (len(self._items), *shape.shape)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8, len(indices)×C×H×W."""
        chosen = [self._items[int(index)] for index in np.atleast_1d(indices.numpy())]
        images = [self._shaper(items.read(index)[0], items.describe(index)) for items, index in chosen]
        return torch.from_numpy(np.stack(images)) if images else torch.empty((0, *self.shape[1:]), dtype=torch.uint8)


def _number(
    raw_labels: list[Any], opened: Sequence[Items], stated: Sequence[str] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as numbers, and the names of the classes."""
    named = [items.class_names for items in opened if items.class_names is not None]
    if len(named) > 1 and list(map(normalize_name, named[0])) != list(map(normalize_name, named[1])):
        raise DatasetError(
            f"train and test have different classes: {', '.join(named[0][:5])}, ... and {', '.join(named[1][:5])}, "
            f"... {explain_difference(named[1], named[0], ('in test', 'in train')) or ''}".rstrip(),
            hint="Number them alike. For Hugging Face datasets: test.align_labels_with_mapping("
            "{name: number for number, name in enumerate(train.features['label'].names)}, 'label').",
        )
    names = tuple(map(str, stated)) if stated is not None else named[0] if named else None
    if raw_labels and all(isinstance(value, str) for value in raw_labels):
        names = names or tuple(sorted(set(map(str, raw_labels))))  # plain strings, where NumPy has its own
        number = {name: label for label, name in enumerate(names)}
        unknown = sorted({value for value in raw_labels if value not in number})
        if unknown:
            raise DatasetError(f"There is a label {unknown[0]!r} that is none of the classes.")
        return np.array([number[value] for value in raw_labels], dtype=np.int64), names
    places = [items.describe(index) for items in opened for index in range(len(items))]
    absent = [place for place, value in zip(places, raw_labels, strict=True) if value is None]
    if absent:
        raise DatasetError(
            f"{len(absent):,} of {len(raw_labels):,} items have no label (None): {', '.join(absent[:5])}"
            f"{', ...' if len(absent) > 5 else ''}.",
            hint="Leave them out; of Hugging Face datasets: data.filter(lambda item: item['label'] is not None).",
        )
    to_number: Callable[[Any, str], int] = _label
    labels = np.array(
        [to_number(value, place) for value, place in zip(raw_labels, places, strict=True)],
        dtype=np.int64,
    )
    if names is None and labels.max(initial=0) >= max(len(labels), 2):
        raise DatasetError(f"There is a label {labels.max()}, and there are only {len(labels)} records.")
    return labels, names or tuple(str(number) for number in range(int(labels.max(initial=0)) + 1))


def _label(label: Any, where: str) -> int:
    """A label as a number from 0: an integer, or a vector with a single 1."""
    try:
        value = np.asarray(label.detach().cpu() if isinstance(label, torch.Tensor) else label)
        if value.ndim == 1 and len(value) > 1 and ((value == 0) | (value == 1)).all() and value.sum() == 1:
            return int(value.argmax())
        number = float(value.reshape(-1)[0]) if value.size == 1 else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise DatasetError(f"{where} has the label {str(label)[:60]!r}; one class number per image is expected.")
    return int(number)
