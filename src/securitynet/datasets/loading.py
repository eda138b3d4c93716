"""`load`: from a reference to an `ImageDataset`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute, ImageDataset, Images
from securitynet.datasets.checksums import Checksums
from securitynet.datasets.lazy import LazyImages, rendered_chunks
from securitynet.datasets.ordering import stratified
from securitynet.datasets.progress import progress_bar
from securitynet.datasets.registry import DATASETS
from securitynet.datasets.rendering import ColourFound, Rendering, natural_shape
from securitynet.datasets.source import ArrayPixels, Indices, Request, Source
from securitynet.datasets.store import FORMAT, load_or_build, unwritable_cache
from securitynet.errors import ConfigurationError, DatasetError
from securitynet.files import cache_folder, data_folder, stable_hash, write_json

LAZY_BYTES = 8 << 30
"""Datasets that would take more than this when decoded (ImageNet) are decoded at each access instead."""

MEMORY_BYTES = 16 << 20
"""Arrays that come from no file and take less than this (digits) are not worth a cache entry."""

_WITH_PATH = ("folder", "parquet")


def load(
    reference: str,
    *,
    channels: int | None = None,
    size: int | None = None,
    root: Path | None = None,
    limit: int | None = None,
    cache: Path | None = None,
) -> ImageDataset:
    """Load a dataset, downloading it first if that is needed and possible.

    Images are decoded once, to uint8, and kept in the cache folder under a name made of the content of the source files
    and of the options here; later calls map that file into memory.

    Args:
        reference: A name (see ``securitynet list datasets``), ``folder:PATH`` or ``parquet:PATH``.
        channels: 1 turns colour into luma (Rec. 601), 3 repeats grey; None leaves the dataset's own.
        size: Side in pixels that all images are resized to (antialiased bilinear); None leaves them.
        root: Folder of the dataset's files; default ``$SECURITYNET_DATA/datasets/NAME``. A relative PATH starts
            from it.
        limit: Keep at most this many records of each part: a fixed random choice that keeps the class shares.
        cache: Folder to use instead of `securitynet.files.cache_folder`.

    Returns:
        The dataset, checked.

    Raises:
        ConfigurationError: If an option makes no sense.
        UnknownName: If there is no such dataset.
        MissingExtra: If its optional package is not installed.
        DatasetError: If its files are absent and cannot be downloaded, or their content is unusable.
    """
    _check_options(channels, size, limit)
    request = _request(reference, root)
    source: Source = DATASETS.get(request.name)(request)
    # Labels, classes and parts are judged before any work goes into the images.
    _dataset(reference, source, None, None)
    chosen = None if limit is None else _limited(reference, source, limit)
    subset = source if chosen is None else _subset(source, chosen)
    folder = Path(cache) if cache is not None else cache_folder()
    images, digest = _images(request, source, chosen, channels, size, folder / "datasets")
    return _dataset(reference, subset, images, digest)


def _check_options(channels: int | None, size: int | None, limit: int | None) -> None:
    if channels not in (None, 1, 3):
        raise ConfigurationError(f"Images have 1 or 3 channels, not {channels}.")
    if size is not None and not 1 <= size <= 4096:
        raise ConfigurationError(f"The image size must be from 1 to 4096 pixels, not {size}.")
    if limit is not None and limit < 1:
        raise ConfigurationError(f"The limit of records a part must be at least 1, not {limit}.")


def _request(reference: str, root: Path | None) -> Request:
    name, separator, path = reference.partition(":")
    if name in _WITH_PATH:
        if not path:
            raise ConfigurationError(f"{reference!r} names no folder.", hint=f"Write {name}:PATH.")
        place = Path(path).expanduser()
        return Request(reference, name, place if root is None else Path(root) / place)
    if separator and name in DATASETS:
        raise ConfigurationError(
            f"The dataset {name} takes no path.",
            hint=f"Write {name}; the folder of its files is a setting of its own (root=... in Python).",
        )
    if name.startswith("medmnist-") and name not in DATASETS and f"{name}mnist" in DATASETS:
        name = f"{name}mnist"
    name = DATASETS.resolve(name).name
    return Request(reference, name, Path(root) if root is not None else data_folder() / "datasets" / name)


def _dataset(reference: str, source: Source, images: Images | None, digest: str | None) -> ImageDataset:
    return ImageDataset(reference, images, source.labels, source.class_names, source.parts, source.attributes, digest)


def _limited(reference: str, source: Source, limit: int) -> Indices | None:
    """Sorted indices of the records that stay; None if all do."""
    kept = []
    for part, unsorted in source.parts.items():
        indices = np.sort(unsorted)
        labels = source.labels[indices]
        classes = len(np.unique(labels))
        if limit < classes:
            raise ConfigurationError(
                f"A limit of {limit} records cannot hold all {classes} classes of the {part} part of {reference}.",
                hint=f"Use a limit of {classes} or more.",
            )
        if limit < len(indices):
            indices = indices[stratified(labels, limit, "limit", part)]
        kept.append(indices)
    chosen = np.sort(np.concatenate(kept)).astype(np.int64)
    return None if len(chosen) == len(source.labels) else chosen


def _subset(source: Source, chosen: Indices) -> Source:
    return replace(
        source,
        labels=source.labels[chosen],
        parts={
            part: np.flatnonzero(np.isin(chosen, indices, assume_unique=True)).astype(np.int64)
            for part, indices in source.parts.items()
        },
        attributes={
            name: Attribute(attribute.values[chosen], attribute.names) for name, attribute in source.attributes.items()
        },
    )


def _images(
    request: Request,
    source: Source,
    chosen: Indices | None,
    channels: int | None,
    size: int | None,
    folder: Path,
) -> tuple[Images, str]:
    """The rendered images and a digest of them."""
    pixels = source.pixels
    indices = np.arange(len(pixels), dtype=np.int64) if chosen is None else chosen
    first = pixels.fetch(indices[:1])[0]
    natural = natural_shape(first, pixels.name(int(indices[0])))
    rendering = Rendering(
        channels=channels or natural[0],
        height=size or natural[1],
        width=size or natural[2],
        resize=size is not None,
        crop=source.crop if size is not None else None,
        # A folder may start with a grey image and go on in colour; then all of it is colour.
        grey_only=channels is None and natural[0] == 1 and not isinstance(pixels, ArrayPixels),
    )
    total = len(indices) * int(np.prod(rendering.shape))
    if total > LAZY_BYTES:
        return _lazily(request, source, chosen, channels, rendering, total)
    checksums = (
        None if isinstance(pixels, ArrayPixels) and not pixels.files else Checksums(folder / "checksums", request.root)
    )
    content = pixels.digest(chosen, checksums)
    if rendering.grey_only and _is_colour(folder, content):
        rendering = replace(rendering, channels=3, grey_only=False)
    try:
        return _rendered(request, source, indices, rendering, content, folder)
    except ColourFound:
        try:
            write_json(_colour_note(folder, content), {"channels": 3})
        except OSError as error:
            raise unwritable_cache(folder, error) from error
        return _rendered(request, source, indices, replace(rendering, channels=3, grey_only=False), content, folder)


def _rendered(
    request: Request, source: Source, indices: Indices, rendering: Rendering, content: str, folder: Path
) -> tuple[torch.Tensor, str]:
    pixels = source.pixels
    key = _key(content, rendering)
    shape = (len(indices), *rendering.shape)

    def chunks() -> Iterator[NDArray[np.uint8]]:
        with progress_bar(f"Decoding {request.reference}", len(indices)) as advance:
            yield from rendered_chunks(pixels, indices, rendering, advance)

    if isinstance(pixels, ArrayPixels) and not pixels.files and int(np.prod(shape)) <= MEMORY_BYTES:
        return torch.from_numpy(np.concatenate(list(chunks()))), key
    return load_or_build(folder / key[:32], shape, chunks), key


def _lazily(
    request: Request, source: Source, chosen: Indices | None, channels: int | None, rendering: Rendering, total: int
) -> tuple[LazyImages, str]:
    if not rendering.resize and not isinstance(source.pixels, ArrayPixels):
        raise DatasetError(
            f"{request.reference} would take {total / 1e9:.0f} GB decoded; it is decoded at each access "
            "instead, for which all images must be brought to one size.",
            hint="Pass --image-size N (size=N in Python), or a limit.",
        )
    if rendering.grey_only:
        # Whether all of them are grey is not known without opening all of them.
        rendering = replace(rendering, channels=channels or 3, grey_only=False)
    # Reading hundreds of gigabytes for a fingerprint would outlast most trials: names and sizes stand for content.
    content = source.pixels.digest(chosen, None)
    return LazyImages(source.pixels, chosen, rendering), _key(content, rendering)


def _key(content: str, rendering: Rendering) -> str:
    """Digest of rendered images. Options that leave every image as it is do not change it."""
    options = {"shape": list(rendering.shape), "crop": rendering.crop}
    return stable_hash({"format": FORMAT, "content": content, "rendering": options}, 64)


def _colour_note(folder: Path, content: str) -> Path:
    return folder / "colour" / f"{content[:32]}.json"


def _is_colour(folder: Path, content: str) -> bool:
    return _colour_note(folder, content).exists()
