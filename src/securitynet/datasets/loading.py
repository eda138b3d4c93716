"""`load`: from a reference to an `ImageDataset`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute, ImageDataset, Images
from securitynet.datasets.checksums import Checksums
from securitynet.datasets.depth import UnexpectedDepth, describe_white
from securitynet.datasets.findings import ImageProperties, find_white_of, note_dark
from securitynet.datasets.lazy import LazyImages, render_chunks
from securitynet.datasets.members import Stated, resolve_members
from securitynet.datasets.ordering import sample_stratified
from securitynet.datasets.progress import show_progress_bar
from securitynet.datasets.references import name_for_loading, suggest_reference
from securitynet.datasets.registry import DATASETS
from securitynet.datasets.rendering import Interpolation, Rendering, UnexpectedColour, holds_deep, read_natural_shape
from securitynet.datasets.source import ArrayPixels, Indices, Pixels, RecordNames, Request, Source
from securitynet.datasets.store import FORMAT, MAPPED_BYTES, load_or_build
from securitynet.errors import ConfigurationError, DatasetError
from securitynet.files import (
    expand_home,
    find_cache_folder,
    find_data_folder,
    hash_stably,
    make_printable,
    read_file_address,
)

LAZY_BYTES = 8 << 30
"""Datasets that would take more than this when decoded (ImageNet) are decoded at each access instead."""

MEMORY_BYTES = 16 << 20
"""Arrays that come from no file and take less than this (digits) are not worth a cache entry."""

_WITH_PATH = ("folder", "parquet")

logger = logging.getLogger(__name__)


def load(
    reference: str,
    *,
    channels: int | None = None,
    size: int | None = None,
    resize: int | None = None,
    crop: int | None = None,
    interpolation: Interpolation | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    members: Stated | None = None,
    non_members: Stated | None = None,
    root: Path | None = None,
    limit: int | None = None,
    cache: Path | None = None,
) -> ImageDataset:
    """Load a dataset, downloading it first if that is necessary and possible.

    Images are decoded once, to uint8, and cached under a key made from the content of the source files and the options
    below; later calls map that file into memory, or, above 1 GiB, read from it what they need.

    Args:
        reference: A name (see ``securitynet list datasets``), ``folder:PATH`` or ``parquet:PATH``.
        channels: 1 converts colour to luma (Rec. 601), 3 repeats grey; None keeps the dataset's own channels.
        size: Side in pixels of the square to which all images are resized; None keeps their size.
        resize: Pixels to which the shorter side of each image is resized, in proportion; not together with ``size``.
        crop: Side in pixels of the square that is then cut out of the centre; likewise.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``, antialiased; default bilinear.
        image_column: Column of the images in a ``parquet:`` dataset, if it has an unusual name.
        label_column: Column of the labels, likewise.
        members: The members, instead of the dataset's own parts: a file (see `securitynet.datasets.members`), names or
            numbers of records, or a boolean mask over the dataset in its own order.
        non_members: The non-members; default: all others. Records in neither list are left out of both parts.
        root: Folder of the dataset's files; default ``$SECURITYNET_DATA/datasets/NAME``. A relative PATH starts
            from it.
        limit: Largest number of records in each part: a fixed random choice that keeps the class shares.
        cache: Folder to use instead of `securitynet.files.find_cache_folder`.

    Returns:
        The dataset, validated.

    Raises:
        ConfigurationError: If an option is invalid.
        UnknownName: If there is no such dataset.
        MissingExtra: If its optional package is not installed.
        DatasetError: If its files are absent and cannot be downloaded, or their content is unusable.
    """
    view = _View(channels, size, resize, crop, interpolation)
    _check_options(view, limit)
    reference = name_for_loading(reference)
    request = replace(make_request(reference, root), image_column=image_column, label_column=label_column)
    if request.name != "parquet" and (image_column is not None or label_column is not None):
        raise ConfigurationError(f"{reference} has no columns: --image-column and --label-column are for parquet:PATH.")
    source: Source = DATASETS.get(request.name)(request)
    names = RecordNames(source.pixels, source.parts)
    source = _with_members(reference, source, names, request.root, (members, non_members))
    # Labels, classes and parts are validated before any work on the images.
    ImageDataset(
        reference,
        _Undecoded(len(source.labels)),
        source.labels,
        source.class_names,
        source.parts,
        source.attributes,
        members_stated=members is not None,
    )
    chosen = None if limit is None else _limited(reference, source, limit)
    subset = source if chosen is None else _subset(source, chosen)
    folder = Path(cache) if cache is not None else find_cache_folder()
    images, digest, notes = _images(request, source, chosen, view, folder / "datasets")
    notes = (*source.notes, *notes)
    for note in notes:
        logger.warning("%s: %s", make_printable(reference), note)
    return ImageDataset(
        reference=make_printable(reference),
        images=images,
        labels=subset.labels,
        class_names=subset.class_names,
        parts=subset.parts,
        attributes=subset.attributes,
        content_digest=digest,
        record_names=names if chosen is None else names.select(chosen),
        notes=notes,
        members_stated=members is not None,
    )


@dataclass(frozen=True)
class _View:
    """The requested form of the images: see `load`."""

    channels: int | None
    size: int | None
    resize: int | None
    crop: int | None
    interpolation: Interpolation | None


def _check_options(view: _View, limit: int | None) -> None:
    if view.channels not in (None, 1, 3):
        raise ConfigurationError(f"Images have 1 or 3 channels, not {view.channels}.")
    for name, side in (("image size", view.size), ("side to resize to", view.resize), ("crop", view.crop)):
        if side is not None and not 1 <= side <= 4096:
            raise ConfigurationError(f"The {name} must be from 1 to 4096 pixels, not {side}.")
    if view.size is not None and (view.resize is not None or view.crop is not None):
        raise ConfigurationError(
            "--image-size stretches images to a square; --resize and --crop keep their proportions.",
            hint="Give one or the other: --resize 256 --crop 224, or --image-size 224.",
        )
    if view.interpolation not in (None, *get_args(Interpolation)):
        raise ConfigurationError(
            f"--interpolation {view.interpolation!r} is not understood.",
            hint=f"Write {', '.join(get_args(Interpolation))}.",
        )
    if limit is not None and limit < 1:
        raise ConfigurationError(f"The limit of records a part must be at least 1, not {limit}.")


def make_request(reference: str, root: Path | None) -> Request:
    """What a loader is asked for: the dataset's name and the folder of its files.

    Args:
        reference: Reference of a dataset, by the name under which it is loaded.
        root: Folder of its files; None for the usual one.

    Raises:
        ConfigurationError: If it names no folder where it must, or one where it must not.
        DatasetError: If there is no such dataset.
    """
    name, separator, path = reference.partition(":")
    plain = read_file_address(path if name in _WITH_PATH else reference)
    if plain is not None:
        raise DatasetError(
            f"{make_printable(reference)} names a folder by an address; folders of datasets are named by their path.",
            hint=f"Write {name if name in _WITH_PATH else 'folder'}:{make_printable(plain)}.",
        )
    if name in _WITH_PATH:
        if not path:
            raise ConfigurationError(f"{reference!r} names no folder.", hint=f"Write {name}:PATH.")
        place = expand_home(path)
        return Request(reference, name, place if root is None else expand_home(root) / place)
    if separator and name in DATASETS:
        raise ConfigurationError(
            f"The dataset {name} takes no path.",
            hint=f"Write {name}; the folder of its files is a separate setting (root=... in Python).",
        )
    if name.startswith("medmnist-") and name not in DATASETS and f"{name}mnist" in DATASETS:
        name = f"{name}mnist"
    if name not in DATASETS:
        suggest_reference(reference)
    name = DATASETS.resolve(name).name
    return Request(reference, name, expand_home(root) if root is not None else find_data_folder() / "datasets" / name)


class _Undecoded:
    """Placeholder for the images while the rest of a dataset is validated."""

    def __init__(self, count: int) -> None:
        self.shape: tuple[int, ...] = (count, 3, 1, 1)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nothing has been decoded yet")


def _with_members(
    reference: str, source: Source, names: RecordNames, folder: Path, stated: tuple[Stated | None, Stated | None]
) -> Source:
    """The source with the members that the user states as its training part."""
    members, non_members = stated
    if members is None:
        if non_members is not None:
            raise ConfigurationError("--non-members states the non-members; --members must state the members too.")
        return source
    membership = resolve_members(members, non_members, names, reference, folder)
    return replace(
        source,
        parts={"train": membership.members, "test": membership.non_members},
        notes=(*source.notes, *membership.notes),
    )


def _limited(reference: str, source: Source, limit: int) -> Indices | None:
    """Sorted indices of the records to use; None for all."""
    selected = []
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
            indices = indices[sample_stratified(labels, limit, "limit", part)]
        selected.append(indices)
    chosen = np.sort(np.concatenate(selected)).astype(np.int64)
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
    request: Request, source: Source, chosen: Indices | None, view: _View, folder: Path
) -> tuple[Images, str, tuple[str, ...]]:
    """The rendered images, a digest of them, and remarks for the reader."""
    pixels = source.pixels
    indices = np.arange(len(pixels), dtype=np.int64) if chosen is None else chosen
    first = pixels.fetch(indices[:1])[0]
    name = pixels.name(int(indices[0]))
    natural = read_natural_shape(first, name)
    rendering = _rendering(view, source, natural)
    notes = list(_describe_view(view, rendering, natural))
    total = len(indices) * int(np.prod(rendering.shape))
    lazy = total > LAZY_BYTES
    if lazy and not (rendering.resize or rendering.centre) and not isinstance(pixels, ArrayPixels):
        raise DatasetError(
            f"{request.reference} would take {total / 1e9:.0f} GB decoded; it is decoded at each access "
            "instead, for which all images must be brought to one size.",
            hint="Pass --resize 256 --crop 224, or --image-size N (size=N in Python), or a limit.",
        )
    if lazy or (isinstance(pixels, ArrayPixels) and not pixels.files):
        checksums = None
    else:
        checksums = Checksums(folder / "checksums", request.root)
    # Hashing hundreds of gigabytes would take longer than most trials, so names and sizes stand for the content.
    content = pixels.digest(chosen, checksums)
    findings = ImageProperties(folder, content)
    if rendering.grey_only and findings.colour:
        rendering = replace(rendering, channels=3, grey_only=False)
    if findings.white is not None or holds_deep(first, name):
        rendering = _with_white(rendering, pixels, findings)
    if lazy:
        if rendering.grey_only:
            # Whether all of them are grey shows only once all have been opened.
            rendering = replace(rendering, channels=view.channels or 3, grey_only=False)
        rendering = replace(rendering, shallow_only=False)
        images: Images = LazyImages(pixels, chosen, rendering)
        key = _key(content, rendering)
    else:
        images, key, rendering = _render_by_content(request, pixels, indices, rendering, findings, folder)
        notes += note_dark(images)
    white = describe_white(rendering.white)
    return images, key, (*notes, white) if white else tuple(notes)


def _rendering(view: _View, source: Source, natural: tuple[int, int, int]) -> Rendering:
    side = view.size or view.crop
    height, width = (side, side) if side is not None else natural[1:]
    if view.resize is not None and view.crop is None:
        short = min(natural[1:])
        height, width = (int(view.resize * length / short) for length in natural[1:])
    return Rendering(
        channels=view.channels or natural[0],
        height=height,
        width=width,
        resize=view.size is not None,
        crop=source.crop if view.size is not None else None,
        # If a folder starts with a grey image and also has colour images, all of it is colour.
        grey_only=view.channels is None and natural[0] == 1 and not isinstance(source.pixels, ArrayPixels),
        shorter_side=view.resize,
        centre=view.crop,
        interpolation=view.interpolation or "bilinear",
        shallow_only=not isinstance(source.pixels, ArrayPixels),
    )


def _describe_view(view: _View, rendering: Rendering, natural: tuple[int, int, int]) -> Iterator[str]:
    steps = []
    if view.resize is not None:
        steps.append(f"resized to {view.resize} pixels on the shorter side ({rendering.interpolation})")
    if view.crop is not None:
        steps.append(f"cropped to the centre {view.crop}×{view.crop}")
    if steps:
        yield f"The images were {' and '.join(steps)}."
    elif view.size is not None and rendering.crop is None and natural[1] != natural[2]:
        yield (
            f"The images were stretched to {view.size}×{view.size} ({rendering.interpolation}); the first one is "
            f"{natural[1]}×{natural[2]}. --resize and --crop keep proportions."
        )


def _with_white(rendering: Rendering, pixels: Pixels, findings: ImageProperties) -> Rendering:
    """The rendering with the value of white in images with more than eight bits, cached or determined now."""
    white = findings.white
    if white is None:
        white = find_white_of(pixels)
        findings.remember(white=white)
    return replace(rendering, white=white, shallow_only=False)


def _render_by_content(
    request: Request, pixels: Pixels, indices: Indices, rendering: Rendering, findings: ImageProperties, folder: Path
) -> tuple[Images, str, Rendering]:
    """Render the images; return them, their key, and the final rendering, which decoding may have changed."""
    while True:
        try:
            return *_rendered(request, pixels, indices, rendering, findings.content, folder), rendering
        except UnexpectedColour:
            findings.remember(channels=3)
            rendering = replace(rendering, channels=3, grey_only=False)
        except UnexpectedDepth:
            rendering = _with_white(rendering, pixels, findings)


def _rendered(
    request: Request, pixels: Pixels, indices: Indices, rendering: Rendering, content: str, folder: Path
) -> tuple[Images, str]:
    key = _key(content, rendering)
    shape = (len(indices), *rendering.shape)
    total = int(np.prod(shape))

    def chunks() -> Iterator[NDArray[np.uint8]]:
        if total > MAPPED_BYTES:
            logger.warning(
                "%s: the decoded images take %.1f GB; they go to %s and are read from there batch by batch.",
                make_printable(request.reference),
                total / 1e9,
                folder,
            )
        with show_progress_bar(f"Decoding {request.reference}", len(indices)) as advance:
            yield from render_chunks(pixels, indices, rendering, advance)

    if isinstance(pixels, ArrayPixels) and not pixels.files and total <= MEMORY_BYTES:
        return torch.from_numpy(np.concatenate(list(chunks()))), key
    return load_or_build(folder / key[:32], shape, chunks), key


def _key(content: str, rendering: Rendering) -> str:
    """Digest of rendered images. Options that change no image do not change it."""
    return hash_stably({"format": FORMAT, "content": content, "rendering": rendering.options()}, 64)
