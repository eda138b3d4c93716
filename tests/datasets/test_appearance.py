"""Features of images without a model: traces of JPEG, files, classes; each against a value known in advance."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft

import securitynet.datasets
from securitynet.datasets.appearance import _cosines, _measure_colours, describe_files, describe_records, measure_images


def make_noise(count: int, side: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def test_cosine_transform_is_scipys():
    block = np.random.default_rng(0).normal(size=(8, 8))
    basis = _cosines().double().numpy()
    assert basis @ block @ basis.T == pytest.approx(fft.dctn(block, norm="ortho"), abs=1e-5)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (3, 33), (1, 300)])
def test_all_features_are_finite(channels, side):
    images = make_noise(3, side)[:, :channels]
    images[0] = 7  # plain
    found = measure_images(images)
    assert found.shape[0] == 3 and np.isfinite(found).all()


@pytest.mark.parametrize(("channels", "side"), [(3, 9), (1, 64), (3, 1)])
def test_colours_counted_by_value_are_those_of_sorted_pixels(channels, side):
    images = make_noise(4, side)[:, :channels]
    images[0] = 7  # plain
    images[1] = images[1] // 64  # few values
    values = images.flatten(2).numpy().astype(np.float64)
    mean, deviation = values.mean(axis=2), values.std(axis=2)
    skewness = ((values - mean[..., None]) ** 3).mean(axis=2) / (deviation**3 + 1)
    ordered = np.sort(values, axis=2)
    places = [round(share * (side * side - 1)) for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)]
    distinct = np.array([[len(np.unique(channel)) for channel in image] for image in values])
    grey = (values.max(axis=1) - values.min(axis=1)).mean(axis=1, keepdims=True)
    parts = [mean, deviation, skewness, *(ordered[..., place] for place in places), distinct, (values % 2).mean(axis=2)]
    parts += [(values == 0).mean(axis=2), (values == 255).mean(axis=2), grey]
    expected = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(_measure_colours(images).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_blocks_of_jpeg_leave_steps_at_their_borders():
    plain = make_noise(1, 32)[0].float()
    smooth = torch.nn.functional.avg_pool2d(plain[None], 5, stride=1, padding=2)[0].round().to(torch.uint8)
    blocks = smooth.clone()
    for top in range(0, 32, 8):
        for left in range(0, 32, 8):
            part = blocks[:, top : top + 8, left : left + 8]
            blocks[:, top : top + 8, left : left + 8] = part.float().mean().round().to(torch.uint8)
    first, second = measure_images(torch.stack([smooth, blocks]))
    at = measure_images(smooth[None]).shape[1] - 2 * 14 - 16  # 14 diagonals, two numbers each; 8 places along both axes
    assert second[at] > first[at] + 1 and second[at + 8] > first[at + 8] + 1  # place 0: the borders


def save(path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def test_files_are_described_by_what_is_in_them_and_not_by_when(tmp_path):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    for number in range(6):
        image = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        save(tmp_path / "train" / "ab"[number % 2] / f"{number}.jpg", image, quality=95)
        save(tmp_path / "test" / "ab"[number % 2] / f"{number}.jpg", image, quality=60, exif=exif)
    dataset = securitynet.datasets.load(f"folder:{tmp_path}", cache=tmp_path / "cache")
    found = describe_files(dataset, np.arange(12, dtype=np.int64))
    train, test = found[dataset.parts["train"]], found[dataset.parts["test"]]
    assert (train.std(axis=0) < 1e-9).sum() >= 8  # all but the size in bytes
    constant = (train.std(axis=0) < 1e-9) & (test.std(axis=0) < 1e-9)
    assert (train[:, constant] != test[:, constant]).any(axis=0).sum() == 3  # two tables and the EXIF data


def test_the_camera_and_the_day_are_read_from_exif_data():
    from securitynet.datasets.appearance import _describe_file, _read_exif

    def read(exif: Image.Exif | bytes) -> tuple[int, str, float]:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
        assert _describe_file(stream.getvalue()) is not None
        return _read_exif(Image.open(stream))

    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "maker", "model", "2015:05:01 10:00:00"
    fields, camera, day = read(exif)
    exif[0x0132] = "2016:05:01 10:00:00"
    assert (fields, camera) == (3, "maker model") and read(exif)[2] - day == 366
    exif[0x0132] = "no day"
    assert read(exif)[2] == 0
    assert read(b"Exif\x00\x00II*\x00\xff\xff\xff\xff")[1:] == ("", 0)


def test_there_are_no_files_behind_arrays(digits):
    assert describe_files(digits, np.arange(4, dtype=np.int64)) is None
    found = describe_records(digits, np.arange(300, dtype=np.int64))
    assert len(found) == 300 and np.isfinite(found).all()
    classes = (digits.labels[:300, None] == np.arange(10)[None]).astype(float)
    assert (found[:, -10:] == classes).all()


def test_a_file_that_cannot_be_read_is_marked():
    from securitynet.datasets.appearance import _describe_file

    stream = io.BytesIO()
    Image.new("L", (8, 4)).save(stream, "PNG")
    described = _describe_file(stream.getvalue())
    assert described is not None and described[0] == ("PNG", "L", "") and described[1][2:4] == (8.0, 4.0)
    assert _describe_file(b"no image") is None
