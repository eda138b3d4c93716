"""The layout of a folder of images: which folders are parts, which are classes, and which only contain the others.

Accepted layouts are ``train/CLASS`` and ``test/CLASS``, ``CLASS`` alone, and ``CLASS/train`` with ``CLASS/test``.
Archives are often unpacked into a folder of their own, or contain another one of the same name
(``training_set/training_set/cats``): a folder that contains nothing but another one is skipped. A folder that could be
either a part or a class is an error.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securitynet.datasets.clutter import count_files, is_clutter
from securitynet.datasets.parts import (
    TEST,
    TRAIN,
    VALIDATION,
    begins_like_part,
    looks_like_part,
    name_parts,
    read_part,
)
from securitynet.datasets.references import describe_file, suggest_other_scheme
from securitynet.errors import DatasetError
from securitynet.files import make_printable

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
"""Endings of file names that are taken for images, in lower case."""

HINT = f"It should hold train/CLASS/* and test/CLASS/*, or CLASS/* alone; images end in {', '.join(sorted(SUFFIXES))}."

_SUBSTITUTES = ("validation", "val", "valid")
_ORDER = (TRAIN, TEST, VALIDATION)
_DEEPEST = 3  # folders that only hold another one

Classes = list[tuple[str, Path]]


@dataclass
class FolderLayout:
    """The location of the images of each part.

    Attributes:
        root: The folder that contains the parts, or the classes.
        folders: Part -> its folder; all of them the root if classes contain the parts.
        parts: Part -> (class, folder of its images).
        notes: Decisions that were made.
        clutter: Clutter of programs between the folders: name -> number of files.
    """

    root: Path
    folders: Mapping[str, Path] = field(default_factory=dict)
    parts: dict[str, Classes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clutter: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Entries:
    folders: list[str]
    images: int


def find_layout(root: Path) -> FolderLayout:
    """Determine the layout of a folder of images.

    Raises:
        DatasetError: If there is no accepted layout, or more than one.
    """
    if not root.is_dir():
        if root.exists():
            raise DatasetError(make_printable(f"{root} is a file, not a folder."), hint=describe_file(root))
        raise DatasetError(make_printable(f"There is no folder {root}."), hint=HINT)
    layout = FolderLayout(root)
    _find_parts(layout, 0)
    if not layout.parts:
        _find_classes(layout)
    return layout


def list_subfolders(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without clutter."""
    return _list(place).folders


def _list(place: Path, clutter: Counter[str] | None = None) -> _Entries:
    folders: list[str] = []
    images = 0
    try:
        for entry in os.scandir(place):
            if is_clutter(entry.name):
                if clutter is not None:
                    clutter[make_printable(entry.name)] += count_files(Path(entry.path))
            elif Path(entry.path).is_dir():
                folders.append(entry.name)
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                images += 1
    except OSError as error:
        raise DatasetError(f"{make_printable(str(place))} cannot be read: {error.strerror}.") from error
    return _Entries(sorted(folders), images)


def _find_parts(layout: FolderLayout, depth: int) -> None:
    """Fill in the folders of parts, or the parts inside the classes; descend if that leads further."""
    root = layout.root
    entries = _list(root, layout.clutter)
    names = entries.folders
    if len(names) == 1 and len(name_parts(list_subfolders(root / names[0]))) > 1 and depth < _DEEPEST:
        layout.root = root / names[0]  # whatever its name: it contains the parts
        _find_parts(layout, depth + 1)
        return
    chosen = _choose_exact(names) or _choose(root, names)
    if chosen:
        layout.folders = {part: root / name for part, name in chosen.items()}
        _note_parts(layout, chosen, names)
        return
    inside = {name: name_parts(list_subfolders(root / name)) for name in names}
    with_parts = [name for name, parts in inside.items() if TRAIN in parts and len(parts) > 1]
    if len(names) > 1 and with_parts == names and all(_are_leaves(root / name, inside[name]) for name in names):
        _take_parts_of_classes(layout, inside)
        return
    suspects = [name for name in names if looks_like_part(name, holds_folders=bool(list_subfolders(root / name)))]
    if len(names) == 1 and not entries.images and depth < _DEEPEST and list_subfolders(root / names[0]):
        layout.root = root / names[0]
        _find_parts(layout, depth + 1)
    elif len(with_parts) == 1 and depth < _DEEPEST and not suspects and not _hold_images(root, names, with_parts[0]):
        layout.root = root / with_parts[0]
        layout.notes.append(f"Only the folder {make_printable(with_parts[0])} was read: it holds the parts.")
        _find_parts(layout, depth + 1)
    elif with_parts:
        raise DatasetError(
            f"{make_printable(str(root))} holds no parts, but {', '.join(map(make_printable, with_parts[:3]))} does.",
            hint="Name the folder that holds train and test.",
        )
    elif suspects and len(names) > 1:
        raise _ambiguous(root, suspects, names)
    else:
        layout.folders = {"all": root}


def _choose_exact(names: Sequence[str]) -> dict[str, str]:
    """The usual names as they are; other names beside them are ignored."""
    if TRAIN not in names:
        return {}
    chosen = {TRAIN: TRAIN, **({TEST: TEST} if TEST in names else {})}
    substitute = next((name for name in _SUBSTITUTES if name in names), None)
    if substitute is not None:
        chosen[VALIDATION if TEST in names else TEST] = substitute
    return chosen if TEST in chosen else {}


def _choose(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Part -> folder, by common names; empty if there is no training part."""
    assigned = name_parts(names)
    if not assigned:
        return {}
    chosen: dict[str, str] = {}
    for part, candidates in assigned.items():
        usual = [name for name in candidates if name == part]
        if len(candidates) > 1 and not usual:
            raise DatasetError(
                f"{make_printable(str(root))} holds several folders that may be its {part} part: "
                f"{', '.join(map(make_printable, candidates))}.",
                hint="Take one of them out, or rename the folders to train and test.",
            )
        chosen[part] = (usual or candidates)[0]
    if TEST not in chosen and VALIDATION in chosen:
        chosen[TEST] = chosen.pop(VALIDATION)
    if TEST not in chosen:
        others = [name for name in names if name != chosen[TRAIN]]
        beside = f" (beside it: {', '.join(map(make_printable, others[:5]))})" if others else ""
        raise DatasetError(
            f"{make_printable(str(root))} holds {make_printable(chosen[TRAIN])} and no test part{beside}."
            if chosen[TRAIN] != TRAIN
            else f"{make_printable(str(root))} holds train and no test{beside}.",
            hint=HINT,
        )
    return {part: chosen[part] for part in _ORDER if part in chosen}


def _note_parts(layout: FolderLayout, chosen: Mapping[str, str], names: Sequence[str]) -> None:
    if read_part(chosen[TEST]) != TEST:
        layout.notes.append(f"There is no folder test; {make_printable(chosen[TEST])} is used as such.")
    others = sorted(set(names) - set(chosen.values()))
    if others:
        words = ", ".join(map(make_printable, others[:5])) + (", ..." if len(others) > 5 else "")
        layout.notes.append(f"Beside the parts there are other folders, which were not read: {words}.")


def _are_leaves(place: Path, parts: Mapping[str, Sequence[str]]) -> bool:
    """Whether the parts in a folder contain images and no folders, so that the folder is a class."""
    names = [name for candidates in parts.values() for name in candidates]
    listings = [_list(place / name) for name in names]
    return len(names) == len(parts) and all(entries.images and not entries.folders for entries in listings)


def _take_parts_of_classes(layout: FolderLayout, inside: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    folders = {
        part: [(name, layout.root / name / parts[part][0]) for name, parts in inside.items() if part in parts]
        for part in _ORDER
    }
    if not folders[TEST]:
        folders[TEST] = folders.pop(VALIDATION)
        layout.notes.append("The classes have no folder test; that of the validation is used as such.")
    layout.parts = {part: places for part, places in folders.items() if places}
    layout.folders = dict.fromkeys(layout.parts, layout.root)


def _hold_images(root: Path, names: Sequence[str], but: str) -> bool:
    return any(
        Path(file).suffix.lower() in SUFFIXES
        for name in names
        if name != but
        for _, _, files in os.walk(root / name)
        for file in files
    )


def _ambiguous(root: Path, suspects: Sequence[str], names: Sequence[str]) -> DatasetError:
    words = ", ".join(map(make_printable, suspects[:3]))
    others = [name for name in names if name not in suspects]
    beside = (
        f" beside {', '.join(map(make_printable, others[:3]))}{', ...' if len(others) > 3 else ''}" if others else ""
    )
    return DatasetError(
        f"{make_printable(str(root))} holds {words}{beside}: it is unclear whether that is a part or a class.",
        hint="Name the parts train and test. If all of these are classes, put them into train/CLASS and test/CLASS.",
    )


def _find_classes(layout: FolderLayout) -> None:
    """Fill in the classes of each part."""
    strays = 0
    of_training: set[str] = set()
    for part, place in layout.folders.items():
        entries = _list(place, layout.clutter if part != "all" else None)
        if len(entries.folders) == 1 and not entries.images and entries.folders[0] not in of_training:
            inner = _list(place / entries.folders[0], layout.clutter)
            if inner.folders and not inner.images:  # training_set/training_set/cats
                place, entries = place / entries.folders[0], inner
        if not entries.folders:
            hint = suggest_other_scheme(layout.root, "folder") or HINT
            raise DatasetError(f"{make_printable(str(place))} holds no folders of classes.", hint=hint)
        # A class may be called train, but a folder that contains the classes is not a class.
        suspects = [
            name
            for name in entries.folders
            if looks_like_part(name, holds_folders=True)
            and not set(list_subfolders(place / name)).isdisjoint(entries.folders)
        ]
        if suspects:
            raise _ambiguous(place, suspects, entries.folders)
        strays += entries.images
        layout.parts[part] = [(name, place / name) for name in entries.folders]
        if part == TRAIN:
            of_training = set(entries.folders)
        elif part == "all":
            _doubt_classes(layout, place, entries.folders)
    if strays:
        layout.notes.append(
            f"{strays} {'image lies' if strays == 1 else 'images lie'} outside the folders of classes, and "
            f"{'was' if strays == 1 else 'were'} passed over."
        )


def _doubt_classes(layout: FolderLayout, place: Path, names: Sequence[str]) -> None:
    """Add a note if the supposed classes may be parts with unknown names.

    Raises:
        DatasetError: If their names begin like those of parts (``Trainingsdaten``).
    """
    first = list_subfolders(place / names[0])
    if len(names) > 1 and len(first) > 1 and all(list_subfolders(place / name) == first for name in names[1:]):
        suspects = [name for name in names if begins_like_part(name)]
        if suspects:
            raise _ambiguous(place, suspects, names)
        words = [make_printable(name) for name in (*names[:2], *first[:2])]
        layout.notes.append(
            f"WARNING: {words[0]}, {words[1]}, ... are taken for classes, and each holds the same folders ({words[2]}, "
            f"{words[3]}, ...). If those are the classes, name the folders above them train and test."
        )
