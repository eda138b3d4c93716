"""Augmentation in batch, against a loop over samples."""

import pytest
import torch

from securitynet.models.training.augment import augment, crop, crop_padding, flip


def batch(dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    images = torch.randint(1, 256, (7, 3, 8, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return images if dtype == torch.uint8 else images.to(dtype) / 255


def crop_one(image: torch.Tensor, top: int, left: int, padding: int) -> torch.Tensor:
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    canvas[:, padding : padding + height, padding : padding + width] = image
    return canvas[:, top : top + height, left : left + width]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_equals_a_loop_over_samples(dtype):
    images, padding = batch(dtype), 3
    tops, lefts = torch.tensor([0, 1, 2, 3, 4, 5, 6]), torch.tensor([6, 0, 3, 3, 2, 5, 1])
    expected = torch.stack(
        [crop_one(i, int(t), int(le), padding) for i, t, le in zip(images, tops, lefts, strict=True)]
    )
    cropped = crop(images, tops, lefts, padding)
    assert torch.equal(cropped, expected)
    assert torch.equal(cropped[3], images[3])  # the offset `padding` leaves an image as it is


def test_flip_mirrors_the_chosen_images_only():
    images = batch()
    chosen = torch.tensor([True, False, False, True, False, True, False])
    flipped = flip(images, chosen)
    for index, choice in enumerate(chosen):
        assert torch.equal(flipped[index], images[index].flip(-1) if choice else images[index])


@pytest.mark.parametrize("kind", ["flip", "crop-flip"])
def test_augment_equals_a_loop_with_the_same_draws(kind):
    images = batch()
    result = augment(images, kind, torch.Generator().manual_seed(5))
    again = torch.Generator().manual_seed(5)
    expected = list(images)
    if kind == "crop-flip":
        padding = crop_padding(8, 10)
        tops = torch.randint(0, 2 * padding + 1, (7,), generator=again)
        lefts = torch.randint(0, 2 * padding + 1, (7,), generator=again)
        expected = [crop_one(image, int(tops[i]), int(lefts[i]), padding) for i, image in enumerate(expected)]
    chosen = torch.rand(7, generator=again) < 0.5
    expected = [image.flip(-1) if chosen[i] else image for i, image in enumerate(expected)]
    assert torch.equal(result, torch.stack(expected))


def test_each_sample_has_its_own_draw_and_the_seed_decides():
    images = batch()[:1].repeat(64, 1, 1, 1)
    first = augment(images, "crop-flip", torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in first}) > 10
    assert torch.equal(first, augment(images, "crop-flip", torch.Generator().manual_seed(0)))
    assert not torch.equal(first, augment(images, "crop-flip", torch.Generator().manual_seed(1)))


def test_none_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    images = batch()
    assert augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), state)


def test_padding_is_four_pixels_at_thirty_two():
    assert [crop_padding(side, side) for side in (4, 8, 32, 224)] == [1, 1, 4, 28]
