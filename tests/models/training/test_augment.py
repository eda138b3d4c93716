"""Augmentation in batch, against a loop over samples."""

import numpy as np
import pytest
import torch

from securitynet.models.training.augment import augment, choose_mirrored, crop, crop_padding, flip, shift


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shift_equals_numpy_padding_by_reflection(dtype):
    images = batch(dtype)
    downs, rights = torch.tensor([0, 1, -1, 2, -2, 2, 0]), torch.tensor([0, -2, 2, 1, 0, 2, -1])
    shifted = shift(images, downs, rights)
    for image, result, down, right in zip(
        images.numpy(), shifted.numpy(), downs.tolist(), rights.tolist(), strict=True
    ):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        np.testing.assert_array_equal(result, padded[:, 2 - down : 10 - down, 2 - right : 12 - right])
    np.testing.assert_array_equal(shifted[3][:, 2:, 1:], images[3][:, :-2, :-1])  # down by 2, right by 1


def test_alternating_flips_show_each_record_both_ways_in_two_epochs():
    epochs = [choose_mirrored("shift-flip", 1000, 7, epoch) for epoch in range(4)]
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert 400 < int(epochs[0].sum()) < 600
    assert not torch.equal(epochs[0], choose_mirrored("shift-flip", 1000, 8, 0))
    assert choose_mirrored("crop-flip", 1000, 7, 0) is None


def test_shift_flip_mirrors_the_given_images_and_shifts_by_a_sixteenth_of_the_side():
    images = torch.arange(1, 33, dtype=torch.uint8).repeat(50, 1, 32, 1)  # each pixel states its column
    mirrored = torch.arange(50) % 2 == 0
    result = augment(images, "shift-flip", torch.Generator().manual_seed(0), mirrored)
    centres = result[:, 0, 16, 16].int()
    shifts = torch.where(mirrored, centres - 16, centres - 17)
    assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    ascending = result[:, 0, 16, 20] > result[:, 0, 16, 10]
    assert torch.equal(ascending, ~mirrored)
