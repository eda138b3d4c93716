"""``folder:PATH``: image files in one folder a class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from securitynet.datasets.columns import attributes_of_folder
from securitynet.datasets.source import FilePixels, Indices, Request, Source
from securitynet.errors import DatasetError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
"""Endings of file names that are taken for images, in lower case."""

_log = logging.getLogger(__name__)

_SUBSTITUTES = ("validation", "val", "valid")
_LAYOUT = (
    f"It should hold train/CLASS/* and test/CLASS/*, or CLASS/* alone; images end in {', '.join(sorted(SUFFIXES))}."
)


def folder(request: Request) -> Source:
    """List images under ``train/CLASS`` and ``test/CLASS``, or under ``CLASS`` as one part called ``all``.

    ``val``, ``valid`` or ``validation`` stands in for a missing ``test``. Classes are the folders' names, sorted.
    Hidden files, and files that are no images by their ending, are passed over. Attributes come from
    ``attributes.csv`` beside the folders, where there is one (`securitynet.datasets.columns`).

    Raises:
        DatasetError: If there is nothing of the kind, a class is empty, or a symbolic link leads back.
    """
    root = request.root
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", hint=_LAYOUT)
    folders = _parts(root)
    classes = {part: _subfolders(place) for part, place in folders.items()}
    for part, names in classes.items():
        if not names:
            what = root if part == "all" else folders[part]
            raise DatasetError(f"{what} holds no folders of classes.", hint=_LAYOUT)
    class_names = tuple(sorted({name for names in classes.values() for name in names}))
    number = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    passed_over = 0
    for part, place in folders.items():
        start = len(paths)
        for name in classes[part]:
            images, others = list_images(place / name)
            passed_over += others
            paths += images
            labels += [number[name]] * len(images)
        if len(paths) == start:
            raise DatasetError(f"{place} holds no images.", hint=_LAYOUT)
        parts[part] = np.arange(start, len(paths), dtype=np.int64)
    if passed_over:
        _log.warning("%s: %d files are no images by their ending, and were passed over.", root, passed_over)
    return Source(
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        parts=parts,
        pixels=FilePixels(root, paths),
        attributes=attributes_of_folder(root, paths),
    )


def list_images(place: Path) -> tuple[list[Path], int]:
    """Image files under a folder at any depth, sorted, following links; and how many other files there are.

    Raises:
        DatasetError: If a symbolic link leads nowhere or to a folder that holds it, or a folder cannot be read.
    """
    images: list[Path] = []
    others = 0
    for path in _walk(place, ()):
        if path.suffix.lower() in SUFFIXES:
            images.append(path)
        else:
            others += 1
    return sorted(images, key=lambda path: path.relative_to(place).as_posix()), others


def _walk(place: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        state = place.stat()
        here = (state.st_dev, state.st_ino)
        if here in above:
            raise DatasetError(
                f"{place} leads back, by a symbolic link, to a folder that holds it.",
                hint="Remove the link: following it never ends.",
            )
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = place / entry.name
            if entry.is_dir():
                yield from _walk(path, (*above, here))
            elif entry.is_file():
                yield path
            else:
                raise DatasetError(f"{path} is not a file: a broken symbolic link, or a device.", hint="Remove it.")
    except OSError as error:
        raise DatasetError(f"{error.filename or place} cannot be read: {error.strerror}.") from error


def _parts(root: Path) -> dict[str, Path]:
    if not (root / "train").is_dir():
        return {"all": root}
    parts = {"train": root / "train"}
    if (root / "test").is_dir():
        parts["test"] = root / "test"
    substitute = next((root / name for name in _SUBSTITUTES if (root / name).is_dir()), None)
    if substitute is not None and "test" in parts:
        parts["validation"] = substitute
    elif substitute is not None:
        _log.warning("%s has no folder test; %s is used as such.", root, substitute.name)
        parts["test"] = substitute
    if "test" not in parts:
        raise DatasetError(f"{root} holds train and no test.", hint=_LAYOUT)
    return parts


def _subfolders(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{place} cannot be read: {error.strerror}.") from error
