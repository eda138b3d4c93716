"""``folder:PATH``: image files in one folder per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from securitynet.datasets.class_names import normalize_name
from securitynet.datasets.clutter import count_files, describe_clutter, is_clutter
from securitynet.datasets.columns import read_attributes_of_folder
from securitynet.datasets.known_files import recognize_files
from securitynet.datasets.layout import HINT, SUFFIXES, FolderLayout, find_layout
from securitynet.datasets.source import FilePixels, Indices, Request, Source
from securitynet.errors import DatasetError
from securitynet.files import make_printable


def folder(request: Request) -> Source:
    """List images under ``train/CLASS`` and ``test/CLASS``, or under ``CLASS`` as one part called ``all``.

    Parts may have other common names (``Training``, ``test_set``), and lie one folder deeper; see
    `securitynet.datasets.layout`. ``val``, ``valid`` or ``validation`` replaces a missing ``test``. Classes are the
    names of the folders, sorted; Unicode forms of one name are one class. Files without the suffix of an image, and
    clutter of programs, are skipped and counted. Attributes come from ``attributes.csv`` beside the folders, if it
    exists (`securitynet.datasets.columns`).

    Raises:
        DatasetError: If there are no such images, a class is empty, a folder may be a part or a class, or a symbolic
            link leads back.
    """
    layout = find_layout(request.root)
    spellings, notes = _spell_classes(layout)
    class_names = sorted(set(spellings.values()))
    if len(class_names) == 1:
        raise DatasetError(
            f"{make_printable(str(layout.root))} holds the images of one class, {make_printable(class_names[0])}; a "
            "classifier "
            "has at least two.",
            hint=recognize_files(request.root) or HINT,
        )
    number = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    whole = Listing(clutter=layout.clutter)
    for part, places in layout.parts.items():
        start = len(paths)
        for name, place in places:
            listing = list_images(place)
            whole.others += listing.others
            whole.clutter += listing.clutter
            paths += listing.images
            labels += [number[spellings[name]]] * len(listing.images)
        if len(paths) == start:
            raise DatasetError(
                f"{make_printable(str(layout.folders[part]))} holds no images.",
                hint=recognize_files(request.root) or HINT,
            )
        parts[part] = np.arange(start, len(paths), dtype=np.int64)
    if whole.others:
        notes.append(f"Skipped {whole.others} file{'s' if whole.others > 1 else ''} without the suffix of an image.")
    if whole.clutter:
        notes.append(describe_clutter(whole.clutter))
    return Source(
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(map(make_printable, class_names)),
        parts=parts,
        pixels=FilePixels(request.root, paths),
        attributes=read_attributes_of_folder(request.root, paths) or read_attributes_of_folder(layout.root, paths),
        notes=tuple(notes),
    )


def _spell_classes(layout: FolderLayout) -> tuple[dict[str, str], list[str]]:
    """Name of a folder -> name of its class, and notes. Unicode forms of one name are one class.

    The spelling of the first part counts, so that classes are numbered as by other programs that read that part.
    """
    first: dict[str, str] = {}
    spellings: dict[str, str] = {}
    for places in layout.parts.values():
        for name, _ in places:
            spellings[name] = first.setdefault(normalize_name(name), name)
    doubled = sorted({normalize_name(name) for name, spelling in spellings.items() if name != spelling})
    if not doubled:
        return spellings, list(layout.notes)
    note = (
        f"Folders are called {', '.join(map(make_printable, doubled[:3]))}{', ...' if len(doubled) > 3 else ''} in two "
        "Unicode forms (NFC, and NFD as macOS writes it); each is read as one class."
    )
    return spellings, [*layout.notes, note]


@dataclass
class Listing:
    """The files under a folder.

    Attributes:
        images: Image files, sorted.
        others: Number of files without the suffix of an image.
        clutter: Clutter of programs: name -> number of files.
    """

    images: list[Path] = field(default_factory=list)
    others: int = 0
    clutter: Counter[str] = field(default_factory=Counter)


def list_images(place: Path) -> Listing:
    """List the image files under a folder at any depth, following links.

    Raises:
        DatasetError: If a symbolic link leads nowhere or to a folder that contains it, or a folder cannot be read.
    """
    listing = Listing()
    for path in _walk(place, (), listing.clutter):
        if path.suffix.lower() in SUFFIXES:
            listing.images.append(path)
        else:
            listing.others += 1
    listing.images.sort(key=lambda path: path.relative_to(place).as_posix())
    return listing


def _walk(place: Path, above: tuple[tuple[int, int], ...], clutter: Counter[str]) -> Iterator[Path]:
    try:
        state = place.stat()
        here = (state.st_dev, state.st_ino)
        if here in above:
            raise DatasetError(
                f"{make_printable(str(place))} leads back, by a symbolic link, to a folder that holds it.",
                hint="Remove the link: following it never ends.",
            )
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        for entry in entries:
            path = place / entry.name
            if is_clutter(entry.name):
                clutter[make_printable(entry.name)] += count_files(path)
            elif entry.is_dir():
                yield from _walk(path, (*above, here), clutter)
            elif entry.is_file():
                yield path
            else:
                raise DatasetError(
                    f"{make_printable(str(path))} is not a file: a broken symbolic link, or a device.",
                    hint="Remove it.",
                )
    except OSError as error:
        raise DatasetError(
            f"{make_printable(str(error.filename or place))} cannot be read: {error.strerror}."
        ) from error
