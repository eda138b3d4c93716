"""`ImageDataset`: images as uint8, labels, class names, attributes, the dataset's own parts, a fingerprint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.class_names import find_near_name
from securitynet.errors import DatasetError

BATCH_BYTES = 16 << 20
"""Bytes of the images that are fetched at once: 111 of 224×224 in colour, 5,461 of 32×32."""


class Images(Protocol):
    """N images of one shape that can be fetched by index.

    A uint8 tensor (in memory or memory-mapped) and `LazyImages` are examples.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """uint8 tensor of shape len(indices)×C×H×W for an int64 tensor of indices."""


@dataclass(frozen=True)
class Attribute:
    """A second label of each record, such as gender in a dataset whose task is race.

    Attributes:
        values: int64, one per record, in [0, len(names)); -1 if the record is not annotated.
        names: Names of the values.
    """

    values: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images; all parts of the dataset are in one sequence.

    Attributes:
        reference: Reference as the user writes it (``digits``, ``folder:photos``).
        images: uint8, N×C×H×W, in any `Images` form; None if only outputs were recorded.
        labels: int64, N, each in [0, number of classes).
        class_names: One per class.
        parts: The dataset's own division, such as ``train`` and ``test``: part -> int64 indices, disjoint.
        attributes: Further labels by name.
        fingerprint: Hexadecimal digest of everything above that affects results.
        content_digest: Stands for the images in the fingerprint; if None, they are hashed on first use.
        record_names: Name of each record: its file, relative to the folder that the user named, or its part and
            position there (``train/17``). None uses its number. Never a path of this machine.
        notes: Remarks for the reader of results, on how the images were read.
        members_stated: Whether the user stated the members; ``train`` are then the members and ``test`` the
            non-members, and a class may have no member.

    Raises:
        DatasetError: On construction, if lengths disagree, a label is out of range, a class of the training part is
            empty, or there are no records.
    """

    reference: str
    images: Images | None
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: Mapping[str, NDArray[np.int64]]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    content_digest: str | None = None
    record_names: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    members_stated: bool = False

    def __post_init__(self) -> None:
        validate_dataset(self)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width).

        Raises:
            DatasetError: If this dataset holds recorded outputs and no images.
        """
        if self.images is None:
            raise DatasetError(f"{self.reference} holds recorded outputs and no images.")
        _, channels, height, width = self.images.shape
        return channels, height, width

    def get_record_name(self, index: int) -> str:
        """Name of a record; see ``record_names``."""
        return f"record {index}" if self.record_names is None else self.record_names[index]

    def batch(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """uint8 images at ``indices``, len(indices)×C×H×W, on the CPU."""
        if self.images is None:
            raise DatasetError(f"{self.reference} holds recorded outputs and no images.")
        return self.images[torch.as_tensor(indices, dtype=torch.int64)]

    def batches(self, indices: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Yield successive (indices, images) of at most ``size`` images, fewer where images are large.

        A batch takes about `BATCH_BYTES` as uint8 at most; what is computed from it takes several times that.
        """
        size = min(size, max(1, BATCH_BYTES // math.prod(self.image_shape)))
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            yield chosen, self.batch(chosen)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over images, labels, class names, parts and attributes.

        The images are hashed once; a loader that knows a digest of them (from the checksums of its source files and its
        decoding options) passes it as ``content_digest`` instead.
        """
        digest = hashlib.sha256()
        digest.update((self.content_digest or self._hash_images()).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update("\0".join(self.class_names).encode())
        for name in sorted(self.parts):
            digest.update(name.encode() + self.parts[name].astype("<i8").tobytes())
        for name in sorted(self.attributes):
            attribute = self.attributes[name]
            digest.update("\0".join((name, *attribute.names)).encode() + attribute.values.astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    def _hash_images(self) -> str:
        if self.images is None:
            return "no images"
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for _, images in self.batches(np.arange(len(self), dtype=np.int64), 4096):
            digest.update(images.contiguous().numpy().tobytes())
        return digest.hexdigest()


def validate_dataset(dataset: ImageDataset) -> None:
    """Check the assumptions of all later steps; errors are those of `ImageDataset`."""
    name, labels = dataset.reference, dataset.labels
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise DatasetError(f"{name} has labels of type {labels.dtype} and shape {labels.shape}; int64, N are expected.")
    if len(labels) == 0:
        raise DatasetError(f"{name} has no images.")
    if dataset.images is not None:
        shape = tuple(dataset.images.shape)
        if len(shape) != 4 or shape[0] != len(labels):
            raise DatasetError(f"{name} has images of shape {shape} for {len(labels)} labels.")
        if getattr(dataset.images, "dtype", torch.uint8) != torch.uint8:
            raise DatasetError(f"{name} has images of type {getattr(dataset.images, 'dtype', None)}, not uint8.")
        if shape[1] not in (1, 3):
            raise DatasetError(f"{name} has images of {shape[1]} channels; 1 or 3 are understood.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= dataset.num_classes:
        worst = int(np.flatnonzero((labels < 0) | (labels >= dataset.num_classes))[0])
        raise DatasetError(
            f"{name}: record {worst} has label {int(labels[worst])}, outside 0 to {dataset.num_classes - 1}.",
            hint="-1 usually marks a record without a label: leave it out, or use a part whose labels are known."
            if labels[worst] == -1
            else "Labels are numbered from 0; check the label column and the number of classes.",
        )
    seen = np.zeros(len(labels), dtype=bool)
    for part, indices in dataset.parts.items():
        if len(indices) and (indices.min() < 0 or indices.max() >= len(labels)):
            raise DatasetError(f"{name}: part {part!r} names records that do not exist.")
        if seen[indices].any() or len(np.unique(indices)) != len(indices):
            raise DatasetError(f"{name}: part {part!r} names records that are in another part, or twice.")
        seen[indices] = True
    if dataset.record_names is not None and len(dataset.record_names) != len(labels):
        raise DatasetError(f"{name} names {len(dataset.record_names)} records and has {len(labels)}.")
    check_all_classes(dataset)
    for key, attribute in dataset.attributes.items():
        if len(attribute.values) != len(labels):
            raise DatasetError(
                f"{name}: attribute {key!r} has {len(attribute.values)} values for {len(labels)} records."
            )
        if attribute.values.min() < -1 or attribute.values.max() >= len(attribute.names):
            raise DatasetError(f"{name}: attribute {key!r} has values outside its {len(attribute.names)} names.")


def check_all_classes(dataset: ImageDataset) -> None:
    """Raise `DatasetError` if a class has no images, since a model could not have learned it."""
    if dataset.images is None or dataset.members_stated:
        return  # a recording or a list of members may have few rows of a model with many classes
    name, labels = dataset.reference, dataset.labels
    training = dataset.parts.get("train")
    present = np.bincount(labels if training is None else labels[training], minlength=dataset.num_classes)
    empty = [dataset.class_names[c] for c in np.flatnonzero(present == 0)]
    if not empty:
        return
    if len(empty) == 1 and not (labels == 0).any() and dataset.class_names == tuple(map(str, range(len(present)))):
        raise DatasetError(
            f"{name} has labels from 1 to {len(present) - 1} and none that is 0: they must be numbered from 0.",
            hint="Subtract 1 from each label.",
        )
    where = "" if training is None else " in its training part"
    full = [dataset.class_names[c] for c in np.flatnonzero(present)]
    near = {one: other for one in empty if (other := find_near_name(one, full)) is not None}
    hint = "Add images of each class, or take the empty classes out."
    if near:
        alike = ", ".join(f"{one!r} and {other!r}" for one, other in list(near.items())[:3])
        more = ", ..." if len(near) > 3 else ""
        hint = (
            f"Names that differ by case or spacing are several classes: {alike}{more}. If they are meant to be the "
            "same, rename them alike in all parts."
        )
    raise DatasetError(
        f"{name} has no images of {len(empty)} of its {dataset.num_classes} classes{where}: "
        f"{', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}.",
        hint=hint,
    )
