"""What can be measured of an image without any model: colours, frequencies, traces of JPEG, and how its file is stored.

The blind baseline tries to tell members from non-members by these.
"""

from __future__ import annotations

import datetime
import io
import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.copies import make_grey
from securitynet.datasets.source import Item, RecordNames

THUMBNAIL = 8
COMPONENTS = 32
"""Principal components of the thumbnails that are features."""

FEWEST_OF_CLASS = 20
"""Records that a class needs for membership in it to be a feature."""

_BLOCK = 8
_BANDS = 8
_SIDE = 256
"""Of larger images, the frequencies of the middle are measured: a square of this side, on the grid of JPEG's blocks."""

Floats = NDArray[np.float64]


def describe_records(dataset: ImageDataset, records: NDArray[np.int64], *, batch: int = 256) -> Floats:
    """Features of records: their images, their classes and, where the dataset was read from image files, those.

    Args:
        dataset: With images.
        records: N of them.
        batch: Images that are measured at once.

    Returns:
        N×D, all finite.
    """
    rows, thumbnails = [], []
    for _, images in dataset.batches(records, batch):
        rows.append(measure_images(images))
        side = (min(THUMBNAIL, images.shape[2]), min(THUMBNAIL, images.shape[3]))
        thumbnails.append(functional.adaptive_avg_pool2d(images.float(), side).flatten(1).double().numpy())
    statistics = np.concatenate(rows)
    components = _reduce(np.concatenate(thumbnails))
    spread = np.abs(components - np.median(components, axis=0))  # groups may differ in how much they vary, too
    parts = [statistics, components, spread, _describe_classes(dataset.labels[records])]
    files = describe_files(dataset, records)
    return np.concatenate(parts if files is None else [*parts, files], axis=1)


def measure_images(images: torch.Tensor) -> Floats:
    """Statistics of uint8 images, N×C×H×W: N×D."""
    grey = make_grey(images)
    parts = [_measure_colours(images), _measure_spectrum(_middle(grey)), _measure_blocks(_middle(grey))]
    return torch.cat(parts, dim=1).double().numpy()


def describe_files(dataset: ImageDataset, records: NDArray[np.int64]) -> Floats | None:
    """Features of the files that images were read from; None where there are none, or not of these records.

    Format, size, dimensions, colour mode, mean of the quantisation tables, subsampling, and from the EXIF data the
    number of fields, the camera and the day of the picture. Nothing of the file system, such as times.
    """
    names = dataset.record_names
    if not isinstance(names, RecordNames):
        return None
    rows = [_describe_file(item) for item in names.fetch(records)]
    known = [row for row in rows if row is not None]
    if not known:
        return None
    # Values that few files have, such as rare cameras, make no columns.
    counts = [Counter(row[0][part] for row in known) for part in range(len(known[0][0]))]
    columns = [sorted(value for value, count in part.items() if count >= FEWEST_OF_CLASS) for part in counts]
    starts = np.cumsum([0, *map(len, columns)])
    table = np.zeros((len(rows), int(starts[-1]) + len(known[0][1]) + 1))
    for at, row in enumerate(rows):
        if row is None:
            table[at, -1] = 1.0
            continue
        for start, values, value in zip(starts, columns, row[0], strict=False):
            if value in values:
                table[at, start + values.index(value)] = 1.0
        table[at, starts[-1] : -1] = row[1]
    return table


def _describe_file(item: Item) -> tuple[tuple[str, str, str], Sequence[float]] | None:
    """Format, mode and camera, and numbers, of an image file; None for what is no file or cannot be read."""
    if isinstance(item, np.ndarray):
        return None
    try:
        size = item.stat().st_size if isinstance(item, Path) else len(item)
        with Image.open(item if isinstance(item, Path) else io.BytesIO(item)) as image:
            width, height = image.size
            tables = getattr(image, "quantization", None) or {}
            means = [float(np.mean(list(tables[number]))) if number in tables else 0.0 for number in (0, 1)]
            layers = getattr(image, "layer", None) or []
            sampling = float(layers[0][1] * layers[0][2]) if layers else 0.0
            fields, camera, day = _read_exif(image)
            profile = float("icc_profile" in image.info)
            numbers = (
                float(size),
                size / (width * height),
                float(width),
                float(height),
                width / height,
                *means,
                sampling,
                float(fields),
                day,
                profile,
                float("progressive" in image.info),
            )
            return (str(image.format), image.mode, camera), numbers
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _read_exif(image: Image.Image) -> tuple[int, str, float]:
    """Number of EXIF fields, make and model of the camera, and the day of the picture, counted from year 1 (or 0)."""
    if "exif" not in image.info:
        return 0, "", 0.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged fields
            exif = image.getexif()
            fields = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        camera = " ".join(str(fields.get(tag, "")) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)).strip()
        taken = str(fields.get(ExifTags.Base.DateTimeOriginal) or fields.get(ExifTags.Base.DateTime) or "")
    except Exception:  # damaged fields raise errors of many kinds
        return 1, "", 0.0
    try:
        day = float(datetime.datetime.strptime(taken[:10], "%Y:%m:%d").toordinal())
    except ValueError:
        day = 0.0
    return len(fields), camera, day


def _describe_classes(labels: NDArray[np.int64]) -> Floats:
    """A column for each class of which there are enough records: N×K."""
    classes, counts = np.unique(labels, return_counts=True)
    return np.asarray(labels[:, None] == classes[counts >= FEWEST_OF_CLASS][None, :], dtype=np.float64)


def _reduce(values: Floats) -> Floats:
    """The first principal components, N×`COMPONENTS` at most."""
    centred = values - values.mean(axis=0)
    _, _, directions = np.linalg.svd(centred.T @ centred, hermitian=True)
    return np.asarray(centred @ directions[:COMPONENTS].T)


def _middle(grey: torch.Tensor) -> torch.Tensor:
    height, width = grey.shape[2:]
    top, left = (max(0, (side - _SIDE) // 2) // _BLOCK * _BLOCK for side in (height, width))
    return grey[:, 0, top : top + _SIDE, left : left + _SIDE]


def _measure_colours(images: torch.Tensor) -> torch.Tensor:
    """Mean, deviation, skewness and quantiles of each channel, how grey it is, and how its values are distributed.

    All but greyness follows from how often each of the 256 values occurs, which is counted in one pass: sorting the
    pixels of large images would take longer than a network's forward pass.
    """
    count, channels, height, width = images.shape
    size, shades = height * width, torch.arange(256, dtype=torch.float64)
    first = torch.arange(count * channels).view(-1, 1) * 256
    places = images.reshape(count * channels, size) + first
    counts = torch.bincount(places.flatten(), minlength=256 * count * channels).view(count, channels, 256)
    shares = counts.double() / size
    mean = (shares * shades).sum(dim=2)
    centred = shades - mean[..., None]
    deviation = (shares * centred.square()).sum(dim=2).sqrt()
    skewness = (shares * centred**3).sum(dim=2) / (deviation**3 + 1.0)
    ranks = torch.tensor([round(share * (size - 1)) for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)])
    # The value at a rank of the sorted pixels: the first one up to which more pixels are counted than the rank.
    below = counts.cumsum(dim=2)
    quantiles = torch.searchsorted(below, ranks.expand(count, channels, -1).contiguous(), right=True)
    distinct, odd = (counts > 0).sum(dim=2), shares[..., 1::2].sum(dim=2)
    colours = images.amax(dim=1).flatten(1) - images.amin(dim=1).flatten(1)
    return torch.cat(
        [mean, deviation, skewness, *quantiles.unbind(dim=2), distinct, odd, shares[..., 0], shares[..., 255],
         colours.float().mean(dim=1, keepdim=True)], dim=1
    ).float()  # fmt: skip


def _measure_spectrum(grey: torch.Tensor) -> torch.Tensor:
    """Logarithm of the power in bands of spatial frequency, and of differences along both axes and both diagonals."""
    height, width = grey.shape[1:]
    power = torch.fft.rfft2(grey - grey.mean(dim=(1, 2), keepdim=True)).abs() ** 2 / (height * width)
    rows, columns = torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width)[None, :]
    frequency = (rows**2 + columns**2).sqrt()
    band = (frequency / 0.5 * _BANDS).long().clamp(max=_BANDS)  # the last one is what only diagonals reach
    bands = torch.stack([(band == number).flatten() for number in range(_BANDS + 1)]).float()
    bands = bands[bands.any(dim=1)]
    features = [power.flatten(1) @ (bands / bands.sum(dim=1, keepdim=True)).T]
    features += [
        difference.abs().mean(dim=(1, 2))[:, None]
        for difference in (
            grey[:, 1:] - grey[:, :-1],
            grey[:, :, 1:] - grey[:, :, :-1],
            grey[:, 1:, 1:] - grey[:, :-1, :-1],
            grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2],
        )
    ]
    return torch.log(torch.cat(features, dim=1) + 0.1)


def _measure_blocks(grey: torch.Tensor) -> torch.Tensor:
    """Traces of JPEG: steps at the borders of 8×8 blocks, and how the coefficients of the blocks are quantised."""
    count, height, width = grey.shape
    if min(height, width) < 2 * _BLOCK:
        return torch.empty((count, 0))
    features = []
    for axis in (1, 2):
        steps = grey.diff(dim=axis).abs().mean(dim=3 - axis)
        at = torch.arange(1, steps.shape[1] + 1) % _BLOCK
        by_place = torch.stack([steps[:, at == place].mean(dim=1) for place in range(_BLOCK)], dim=1)
        features.append(torch.log((by_place + 0.1) / (by_place.mean(dim=1, keepdim=True) + 0.1)))
    blocks = grey[:, : height // _BLOCK * _BLOCK, : width // _BLOCK * _BLOCK]
    blocks = blocks.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK).flatten(1, 2)
    basis = _cosines()
    coefficients = (basis @ (blocks - 128) @ basis.T).abs()
    sizes, zeros = coefficients.mean(dim=1), (coefficients < 0.5).float().mean(dim=1)  # over the blocks
    for diagonal in range(1, 2 * _BLOCK - 1):
        places = [(u, v) for u, v in itertools.product(range(_BLOCK), repeat=2) if u + v == diagonal]
        rows, columns = [u for u, _ in places], [v for _, v in places]
        features += [
            torch.log(sizes[:, rows, columns].mean(dim=1, keepdim=True) + 0.1),
            zeros[:, rows, columns].mean(dim=1, keepdim=True),
        ]
    return torch.cat(features, dim=1)


def _cosines() -> torch.Tensor:
    """The orthonormal discrete cosine transform of 8 values, 8×8."""
    place = torch.arange(_BLOCK, dtype=torch.float32)
    basis = torch.cos((2 * place[None, :] + 1) * place[:, None] * torch.pi / (2 * _BLOCK)) / 2
    basis[0] /= 2**0.5
    return basis
