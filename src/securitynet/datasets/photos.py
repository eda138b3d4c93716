"""Photographs in files: CUB-200-2011 and ImageNet."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from securitynet.datasets.arrays import read_matlab
from securitynet.datasets.download import RemoteFile, fetch_unpacked
from securitynet.datasets.folder import list_images
from securitynet.datasets.source import FilePixels, Indices, Request, Source
from securitynet.datasets.tables import read_lines, read_pairs
from securitynet.errors import DatasetError, RefusedFile

CUB = RemoteFile(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
    "CUB_200_2011.tgz",
    "md5:97eceeb196236b17998738112f37df78",
)

_IMAGENET_HINT = (
    "Get it from https://image-net.org (a login is needed) and put it there: train/WNID/*.JPEG and val/WNID/*.JPEG, or "
    "val/*.JPEG with LOC_val_solution.csv, val.txt (image, then wnid or its number in sorted order), or "
    "ILSVRC2012_validation_ground_truth.txt with the development kit's meta.mat."
)


def cub200(request: Request) -> Source:
    """Caltech-UCSD Birds-200-2011, with its own division."""
    root = request.root
    place = root if (root / "images.txt").is_file() else fetch_unpacked(CUB, root, "CUB_200_2011")
    images = dict(read_pairs(place / "images.txt", "a number and a path"))
    labels = dict(read_pairs(place / "image_class_labels.txt", "numbers of an image and a class"))
    trains = dict(read_pairs(place / "train_test_split.txt", "a number of an image, and 0 or 1"))
    classes = dict(read_pairs(place / "classes.txt", "a number and a name"))
    numbers = {identifier: position for position, identifier in enumerate(classes)}
    values: list[int] = []
    train: list[int] = []
    test: list[int] = []
    for position, identifier in enumerate(images):
        label, side = labels.get(identifier), trains.get(identifier)
        if label not in numbers or side not in ("0", "1"):
            raise DatasetError(
                f"{place}: image {identifier} ({images[identifier]}) has class {label} and training flag {side}.",
                hint="image_class_labels.txt or train_test_split.txt is damaged; get the files again.",
            )
        values.append(numbers[label])
        (train if side == "1" else test).append(position)
    return Source(
        labels=np.array(values, dtype=np.int64),
        class_names=tuple(classes.values()),
        parts={"train": np.array(train, dtype=np.int64), "test": np.array(test, dtype=np.int64)},
        pixels=FilePixels(place, [place / "images" / path for path in images.values()]),
    )


def imagenet(request: Request) -> Source:
    """ImageNet (ILSVRC 2012): ``train`` is the training set, ``test`` the validation set, whose labels are public.

    Classes are numbered in the sorted order of their WordNet identifiers, as is usual. Either part may be absent. With
    an image size, the shorter side is resized to size/0.875 and the centre is cut out, as these models are tested.

    Raises:
        DatasetError: If neither part is there, or labels of the validation set are missing.
    """
    root = request.root
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    place = data if data.is_dir() else root
    folders = {part: place / name for part, name in (("train", "train"), ("test", "val")) if (place / name).is_dir()}
    if not folders:
        raise DatasetError(f"ImageNet is not in {root}.", hint=_IMAGENET_HINT)
    listed = {part: _by_wnid(folder) for part, folder in folders.items()}
    synsets = _synsets(root)
    wnids = sorted({*synsets, *(wnid for by_wnid in listed.values() for wnid in by_wnid)})
    if "test" in listed and not listed["test"]:
        listed["test"] = _flat(root, folders["test"], wnids)
        wnids = sorted({*wnids, *listed["test"]})
    paths: list[Path] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    for part, by_wnid in listed.items():
        start = len(paths)
        for label, wnid in enumerate(wnids):
            of_class = by_wnid.get(wnid, [])
            paths += of_class
            labels += [label] * len(of_class)
        if len(paths) == start:
            raise DatasetError(f"{folders[part]} holds no images.", hint=_IMAGENET_HINT)
        parts[part] = np.arange(start, len(paths), dtype=np.int64)
    return Source(
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(synsets.get(wnid, wnid) for wnid in wnids),
        parts=parts,
        pixels=FilePixels(root, paths),
        crop=0.875,
    )


def _by_wnid(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return {entry.name: list_images(entry).images for entry in classes}


def _synsets(root: Path) -> dict[str, str]:
    """Names by WordNet identifier, from whichever list is there; empty if none is."""
    for name in ("LOC_synset_mapping.txt", "synset_words.txt"):
        if (root / name).is_file():
            return dict(read_pairs(root / name, "a WordNet identifier and a name"))
    return {}


def _flat(root: Path, folder: Path, wnids: list[str]) -> dict[str, list[Path]]:
    """Images of a validation folder without list_subfolders, by WordNet identifier."""
    images = list_images(folder).images
    truth = _truth(root, images, wnids)
    by_wnid: dict[str, list[Path]] = {}
    for path in images:
        wnid = truth.get(path.stem)
        if wnid is None:
            raise DatasetError(f"{path} has no label in the ground truth.", hint=_IMAGENET_HINT)
        by_wnid.setdefault(wnid, []).append(path)
    return by_wnid


def _truth(root: Path, images: list[Path], wnids: list[str]) -> dict[str, str]:
    """Name of an image without suffix -> WordNet identifier."""
    solution = root / "LOC_val_solution.csv"
    if solution.is_file():
        rows = list(csv.DictReader(read_lines(solution)))
        if not rows or not {"ImageId", "PredictionString"} <= rows[0].keys():
            raise DatasetError(f"{solution} has no columns ImageId and PredictionString.", hint="Get the file again.")
        return {row["ImageId"]: (row["PredictionString"] or "").partition(" ")[0] for row in rows}
    listing = root / "val.txt"
    if listing.is_file():
        return {
            Path(image).stem: _wnid(label, wnids, listing) for image, label in read_pairs(listing, "image and label")
        }
    for folder in (root, root / "data", root / "ILSVRC2012_devkit_t12" / "data"):
        truth, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
        if truth.is_file() and meta.is_file():
            numbers = read_lines(truth)
            if len(numbers) != len(images):
                raise DatasetError(f"{truth} has {len(numbers)} labels for {len(images)} images.", hint=_IMAGENET_HINT)
            by_number = _devkit(meta)
            # The kit's own numbering is not the sorted order of the identifiers; meta.mat maps one to the other.
            return {path.stem: by_number.get(number.strip(), "") for path, number in zip(images, numbers, strict=True)}
    raise DatasetError(
        f"The images in {root / 'val'} are not sorted into classes, and no labels lie beside them.", hint=_IMAGENET_HINT
    )


def _wnid(label: str, wnids: list[str], listing: Path) -> str:
    if not label.isdecimal() or len(label) > 9:
        return label
    if int(label) >= len(wnids):
        raise DatasetError(
            f"{listing} has class {label}, and {len(wnids)} classes are known.",
            hint="Put LOC_synset_mapping.txt or synset_words.txt beside it: numbers mean the sorted order of all.",
        )
    return wnids[int(label)]


def _devkit(path: Path) -> dict[str, str]:
    """ILSVRC2012 number -> WordNet identifier, from the development kit."""
    try:
        synsets = read_matlab(path, "synsets", squeeze_me=True)
        return {str(int(entry["ILSVRC2012_ID"])): str(entry["WNID"]) for entry in np.atleast_1d(synsets)}
    except RefusedFile:
        raise
    except Exception as error:  # the reader gets arbitrary bytes, and raises arbitrary errors
        raise DatasetError(f"{path} is not the development kit's meta.mat: {error}.") from error
