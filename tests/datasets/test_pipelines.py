"""``--resize``, ``--crop`` and ``--interpolation`` against torchvision on the same Pillow images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_files import noise, write_folder, write_png
from securitynet.datasets import load
from securitynet.errors import ConfigurationError, DatasetError
from securitynet.torchvision_cure import import_torchvision

transforms: Any = import_torchvision("torchvision.transforms")


def write_mixed(root: Path) -> list[np.ndarray]:
    """Images of other shapes, wide and tall, odd and even."""
    arrays = [noise(1, 3, 20 + 3 * k, 37 - 2 * k, seed=k)[0] for k in range(8)]
    for k, array in enumerate(arrays):
        write_png(root / ("train", "test")[k // 4] / "ab"[k % 2] / f"{k}.png", array)
    return [arrays[k] for k in (0, 2, 1, 3, 4, 6, 5, 7)]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("resize", "crop"), [(24, 21), (16, 16), (None, 13), (None, 30), (17, 40)])
def test_as_torchvision_does_it(resize: int | None, crop: int, interpolation: str, tmp_path: Path) -> None:
    arrays = write_mixed(tmp_path)
    mode = transforms.InterpolationMode(interpolation)
    steps = ([transforms.Resize(resize, interpolation=mode)] if resize else []) + [transforms.CenterCrop(crop)]
    pipeline = transforms.Compose(steps)
    dataset = load(f"folder:{tmp_path}", resize=resize, crop=crop, interpolation=interpolation)
    for image, array in zip(dataset.images.numpy(), arrays, strict=True):
        expected = np.asarray(pipeline(Image.fromarray(array.transpose(1, 2, 0)))).transpose(2, 0, 1)
        assert np.array_equal(image, expected)
    assert any("cropped to the centre" in note for note in dataset.notes)


def test_resizing_alone_keeps_proportions(tmp_path: Path) -> None:
    write_folder(tmp_path, shape=(3, 12, 20))
    assert load(f"folder:{tmp_path}", resize=6).image_shape == (3, 6, 10)


def test_a_stretch_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert any("stretched to 8×8 (bilinear)" in note for note in load(f"folder:{tmp_path}", size=8).notes)


def test_no_option_changes_no_fingerprint_and_each_option_does(tmp_path: Path) -> None:
    write_folder(tmp_path, shape=(3, 12, 20))
    reference = f"folder:{tmp_path}"
    plain = load(reference, size=8).fingerprint
    assert load(reference, size=8, interpolation="bilinear").fingerprint == plain
    different = [
        load(reference, size=8, interpolation="bicubic"),
        load(reference, resize=8, crop=8),
        load(reference, resize=8, crop=8, interpolation="bicubic"),
        load(reference, resize=9, crop=8),
        load(reference, crop=8),
    ]
    assert len({plain, *(dataset.fingerprint for dataset in different)}) == 6


def test_images_of_different_shapes_without_a_transform_are_refused(tmp_path: Path) -> None:
    write_mixed(tmp_path)
    with pytest.raises(DatasetError, match=r"differ in shape.*--resize 256 --crop 224 --interpolation bicubic"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8, "resize": 9}, "stretches images to a square"),
        ({"size": 8, "crop": 8}, "stretches images to a square"),
        ({"resize": 0}, "side to resize to must be from 1"),
        ({"crop": 5000}, "crop must be from 1 to 4096"),
        ({"interpolation": "cubic"}, "nearest, bilinear, bicubic, lanczos"),
        ({"image_column": "img"}, "has no columns"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        load(f"folder:{tmp_path}", **options)


def test_an_array_dataset_can_be_cropped() -> None:
    whole, cropped = load("digits"), load("digits", crop=6)
    assert np.array_equal(cropped.images.numpy(), whole.images.numpy()[:, :, 1:7, 1:7])
