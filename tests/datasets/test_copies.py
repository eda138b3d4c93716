"""Copies of images: equal and near ones are found, different ones are not."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageFilter

from securitynet.datasets import copies as searched
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.copies import find_copies


def make_scenes(count: int, seed: int) -> torch.Tensor:
    """Random images with more power at low frequencies, as photos have: N×3×32×32 uint8."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)[None, :])
    noise = np.fft.fft2(random.normal(size=(count, 3, 32, 32)))
    waves = np.fft.ifft2(noise / np.maximum(frequency, 1 / 32) ** 1.2).real
    waves = (waves - waves.mean(axis=(2, 3), keepdims=True)) / waves.std(axis=(2, 3), keepdims=True)
    return torch.from_numpy(np.clip(128 + 50 * waves, 0, 255).astype(np.uint8))


def make_dataset(images: torch.Tensor) -> ImageDataset:
    labels = np.arange(len(images), dtype=np.int64) % 2
    return ImageDataset("made", images, labels, ("a", "b"), {})


def change(image: torch.Tensor, quality: int = 95, blur: float = 0.0) -> torch.Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(blur))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(stream)).copy()).permute(2, 0, 1)


def crop_centre(image: torch.Tensor) -> torch.Tensor:
    """The middle seven eighths, as large as the whole."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((2, 2, 30, 30)).resize((32, 32), Image.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def shift(image: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """The image moved by a few pixels, its border repeated."""
    rows, columns = (torch.arange(32) - step for step in (down, across))
    return image[:, rows.clamp(0, 31)][:, :, columns.clamp(0, 31)]


def records(dataset: ImageDataset) -> tuple[ImageDataset, np.ndarray]:
    return dataset, np.arange(len(dataset), dtype=np.int64)


def test_equal_and_near_copies_are_told_apart_and_have_their_partners():
    first, others = make_scenes(60, 0), make_scenes(60, 1)
    second = others.clone()
    second[3], second[5] = first[7], first[7]
    second[10], second[11] = change(first[20], quality=60), change(first[21], blur=0.7)
    second[12] = (first[22].float() * 0.8 + 10).round().to(torch.uint8)  # darker
    second[13] = first[23].roll(3, dims=2)  # moved far: another image
    second[14] = change(first[24].flip(2), quality=60)
    second[15] = crop_centre(first[25])
    second[16] = crop_centre(first[26]).flip(2)
    first[27] = crop_centre(second[17])
    second[18] = shift(first[28], 2, -1)
    second[19] = change(shift(first[29], -1, 0).flip(2), quality=60)
    copies = find_copies(records(make_dataset(first)), records(make_dataset(second)))
    assert np.flatnonzero(copies.second_exact).tolist() == [3, 5]
    assert np.flatnonzero(copies.second_near).tolist() == [10, 11, 12, *range(14, 20)]
    assert np.flatnonzero(copies.first_exact).tolist() == [7]
    assert np.flatnonzero(copies.first_near).tolist() == [20, 21, 22, *range(24, 30)]
    assert copies.partner[[3, 5, *range(10, 13), *range(14, 20)]].tolist() == [7, 7, 20, 21, 22, *range(24, 30)]
    assert copies.partner[13] == -1 and copies.searched == 60


def test_different_images_are_no_copies():
    copies = find_copies(records(make_dataset(make_scenes(400, 2))), records(make_dataset(make_scenes(400, 3))))
    assert not copies.first.any() and not copies.second.any()


def test_plain_images_are_copies_only_where_they_are_equal():
    grey = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    other = torch.full((2, 3, 32, 32), 101, dtype=torch.uint8)
    assert not find_copies(records(make_dataset(grey)), records(make_dataset(other))).second.any()
    assert find_copies(records(make_dataset(grey)), records(make_dataset(grey))).second_exact.all()


def test_different_digits_are_no_copies(digits):
    half = len(digits) // 2
    everyone = np.arange(len(digits), dtype=np.int64)
    copies = find_copies((digits, everyone[:half]), (digits, everyone[half:]))
    assert copies.second.mean() < 0.005


def test_what_is_out_of_reach_is_no_copy(monkeypatch):
    """Only images that lie close in one direction are compared: the pairs are those of comparing all with all."""
    scenes, random = make_scenes(200, 5), np.random.default_rng(5)
    noise = random.normal(size=scenes.shape) * random.uniform(0, 60, (200, 1, 1, 1))  # some are copies, some no more
    second = torch.from_numpy(np.clip(scenes.numpy() + noise, 0, 255).astype(np.uint8))
    one, other = (searched._hash(*records(make_dataset(images))) for images in (scenes, second))
    everyone = np.arange(200, dtype=np.int64)
    hashes, checks = one.whole.hashes @ other.whole.hashes.T, one.whole.checks.float() @ other.whole.checks.float().T
    expected = (hashes >= searched.LEAST_CORRELATION) & (checks >= searched.LEAST_CHECKED)
    monkeypatch.setattr(searched, "_PART", 7)
    pairs = [np.stack(part) for part in searched._compare(one.whole, other.whole, everyone, everyone)]
    found = np.zeros((200, 200), dtype=bool)
    found[tuple(np.concatenate(pairs, axis=1))] = True
    assert 40 < found.sum() < 200 and np.array_equal(found, expected.numpy())


def test_all_shifted_parts_at_once_are_those_one_by_one():
    images = searched.make_grey(make_scenes(20, 6)).round().to(torch.uint8)
    side = searched.SHIFT_SIDE - 2 * searched.FARTHEST_SHIFT
    parts = searched._normalise_parts(images)
    for number, (down, across) in enumerate(searched._SHIFTS):
        alone = images[:, :, down : down + side, across : across + side].float()
        torch.testing.assert_close(parts[:, number], searched._normalise(alone, searched.HASH_SIDE), atol=1e-5, rtol=0)


def test_no_image_alike_is_no_error():
    """Two images of which none is anything like one of the others: no candidate is left for shifts."""
    one, other = torch.zeros((2, 3, 32, 32), dtype=torch.uint8), torch.zeros((2, 3, 32, 32), dtype=torch.uint8)
    one[:, :, :16], other[:, :, :, :16] = 255, 255  # bands across, and bands down
    assert not find_copies(records(make_dataset(one)), records(make_dataset(other))).second.any()
