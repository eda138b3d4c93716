"""Faces: CelebA and UTKFace. Their hosts require a login or a form, so the user must download the files."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute
from securitynet.datasets.folder import list_images
from securitynet.datasets.source import FilePixels, Indices, Pixels, Request, Source, ZipPixels
from securitynet.datasets.tables import read_lines, read_pairs
from securitynet.errors import DatasetError

logger = logging.getLogger(__name__)

_CELEBA_TASK = ("Heavy_Makeup", "Mouth_Slightly_Open", "Smiling")
_CELEBA_PARTS = {"0": "train", "1": "validation", "2": "test"}

RACES = ("White", "Black", "Asian", "Indian")
"""The four largest groups of UTKFace, in the order of its numbers; the fifth, "others", is left out."""

_UTKFACE_NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+\.jpg(\.chip\.jpg)?", re.IGNORECASE)


def celeba(request: Request) -> Source:
    """CelebA, aligned and cropped: the 8-class task of Heavy_Makeup × Mouth_Slightly_Open × Smiling.

    The label is 4·Heavy_Makeup + 2·Mouth_Slightly_Open + Smiling (ML-Doctor, section 5.1). Attributes are ``Male`` and
    ``Young``. Parts are those of ``list_eval_partition.txt``.

    Raises:
        DatasetError: If a file is missing, or a list is invalid.
    """
    root = request.root
    images, archive = root / "img_align_celeba", root / "img_align_celeba.zip"
    lists = root / "list_attr_celeba.txt", root / "list_eval_partition.txt"
    absent = [path.name for path in lists if not path.is_file()]
    if not images.is_dir() and not archive.is_file():
        absent.append("img_align_celeba.zip (or the folder img_align_celeba)")
    if absent:
        raise DatasetError(
            f"CelebA is not in {root}: {', '.join(absent)} missing. Its licence asks for a download by hand.",
            hint="Get the files from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put them there.",
        )
    names, values = _celeba_attributes(lists[0], (*_CELEBA_TASK, "Male", "Young"))
    assigned = dict(read_pairs(lists[1], "an image and a part"))
    order: dict[str, list[int]] = {part: [] for part in _CELEBA_PARTS.values()}
    for position, name in enumerate(names):
        part = _CELEBA_PARTS.get(assigned.get(name, ""))
        if part is None:
            raise DatasetError(f"{lists[1]} gives the image {name} no part (0, 1 or 2).", hint="Get the file again.")
        order[part].append(position)
    pixels: Pixels
    if images.is_dir():
        pixels = FilePixels(root, [images / name for name in names])
    else:
        pixels = ZipPixels(archive, [f"img_align_celeba/{name}" for name in names])
    return Source(
        labels=values[:, 0] * 4 + values[:, 1] * 2 + values[:, 2],
        class_names=tuple(_celeba_class(number) for number in range(8)),
        parts={part: np.array(positions, dtype=np.int64) for part, positions in order.items() if positions},
        pixels=pixels,
        attributes={
            "Male": Attribute(values[:, 3], ("not Male", "Male")),
            "Young": Attribute(values[:, 4], ("not Young", "Young")),
        },
    )


def utkface(request: Request) -> Source:
    """UTKFace: race (the four largest groups) as label, gender as attribute, both from ``age_gender_race_date.jpg``.

    It has no division of its own: its only part is ``all``. Files with other names (two of the original ones lack the
        race)
    are left out and counted in a warning.

    Raises:
        DatasetError: If there are no images with such names.
    """
    root = request.root
    place = root / "UTKFace" if (root / "UTKFace").is_dir() else root
    hint = "Get the aligned and cropped faces from https://susanqq.github.io/UTKFace/ and put them there."
    if not place.is_dir():
        raise DatasetError(f"UTKFace is not in {root}. Its licence asks for a download by hand.", hint=hint)
    paths: list[Path] = []
    races: list[int] = []
    genders: list[int] = []
    unread: list[Path] = []
    seen: set[str] = set()
    repeated = others = 0
    for path in list_images(place).images:
        match = _UTKFACE_NAME.fullmatch(path.name)
        if match is None:
            unread.append(path)
        elif int(match["race"]) >= len(RACES):
            others += 1
        elif path.name in seen:
            # Some copies in circulation contain every face several times: a member would also be a non-member.
            repeated += 1
        else:
            seen.add(path.name)
            paths.append(path)
            races.append(int(match["race"]))
            genders.append(int(match["gender"]))
    if not paths:
        raise DatasetError(f"{place} holds no images called age_gender_race_date.jpg.", hint=hint)
    if unread:
        logger.warning(
            "%s: %d file names do not say age_gender_race_date, such as %s.", place, len(unread), unread[0].name
        )
    if repeated:
        logger.warning("%s: %d images have the name of another one; the first of each name is used.", place, repeated)
    if others:
        logger.info("%s: %d faces of other groups are left out.", place, others)
    everything: Indices = np.arange(len(paths), dtype=np.int64)
    return Source(
        labels=np.array(races, dtype=np.int64),
        class_names=RACES,
        parts={"all": everything},
        pixels=FilePixels(root, paths),
        attributes={"gender": Attribute(np.array(genders, dtype=np.int64), ("male", "female"))},
    )


def _celeba_class(number: int) -> str:
    makeup = "heavy makeup" if number & 4 else "no heavy makeup"
    mouth = "mouth slightly open" if number & 2 else "mouth closed"
    return f"{makeup}, {mouth}, {'smiling' if number & 1 else 'not smiling'}"


def _celeba_attributes(path: Path, wanted: tuple[str, ...]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of images, and the requested attributes as 0 and 1: N×len(wanted)."""
    lines = read_lines(path)
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise DatasetError(f"{path} does not start with a number of images and the attributes' names.")
    header = lines[1].split()
    absent = [name for name in wanted if name not in header]
    if absent:
        raise DatasetError(f"{path} has no attribute {', '.join(absent)}.")
    columns = [header.index(name) + 1 for name in wanted]
    names: list[str] = []
    rows: list[list[int]] = []
    meaning = {"-1": 0, "1": 1}
    for number, line in enumerate(lines[2:], start=3):
        fields = line.split()
        if not fields:
            continue
        try:
            if len(fields) != len(header) + 1:
                raise KeyError
            rows.append([meaning[fields[column]] for column in columns])
        except KeyError:
            raise DatasetError(
                f"{path}, line {number}: expected an image and {len(header)} values of -1 or 1.",
                hint="Get the file again.",
            ) from None
        names.append(fields[0])
    if len(names) != int(lines[0]):
        raise DatasetError(f"{path} lists {len(names)} images and says {int(lines[0])}.", hint="Get the file again.")
    return names, np.array(rows, dtype=np.int64)
