from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from securitynet.datasets import load
from securitynet.datasets.digits import measure_slant, measure_stroke_thickness


def test_digits_are_those_of_scikit_learn() -> None:
    dataset = load("digits")
    bunch = load_digits()
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.images.dtype == torch.uint8
    assert np.array_equal(dataset.labels, bunch.target)
    assert np.array_equal(dataset.images[:, 0].numpy(), np.round(bunch.images * 255 / 16))
    assert dataset.class_names == tuple("0123456789")


def test_digits_parts_keep_class_shares() -> None:
    dataset = load("digits")
    assert {part: len(indices) for part, indices in dataset.parts.items()} == {"train": 1437, "test": 360}
    shares = np.bincount(dataset.labels[dataset.parts["test"]]) / np.bincount(dataset.labels)
    assert np.allclose(shares, 360 / 1797, atol=0.005)


def test_attributes_divide_at_the_median_and_are_not_the_label() -> None:
    dataset = load("digits")
    for name, names in (("slant", ("leftward", "rightward")), ("stroke-thickness", ("thin", "thick"))):
        attribute = dataset.attributes[name]
        assert attribute.names == names
        assert 0.49 < attribute.values.mean() < 0.51
        # The attribute is not another name for the label: guessing it from the label is often wrong.
        shares = np.array([attribute.values[dataset.labels == label].mean() for label in range(10)])
        assert np.maximum(shares, 1 - shares).mean() < 0.8


def bars(width: float, shear: float = 0.0, size: int = 41) -> np.ndarray:
    """A smooth-edged upright bar, 21 pixels high, sheared to the right by ``shear`` pixels a row upwards."""
    rows = (size - 1) / 2 - np.arange(size)
    columns = np.arange(size) - (size - 1) / 2
    distance = np.abs(columns[None, :] - shear * rows[:, None])
    ink = np.clip(width / 2 + 0.5 - distance, 0, 1)
    ink[np.abs(rows) > 10] = 0
    return ink


@pytest.mark.parametrize("shear", [-0.6, -0.2, 0.0, 0.3, 0.7])
def test_slant_measures_the_shear_with_its_sign(shear: float) -> None:
    assert measure_slant(bars(3, shear)[None])[0] == pytest.approx(shear, abs=0.02)


def test_slant_without_height_or_ink_is_zero() -> None:
    line = np.zeros((2, 9, 9))
    line[0, 4, 2:7] = 1
    assert measure_slant(line).tolist() == [0, 0]


@pytest.mark.parametrize("darkness", [1.0, 0.3])
def test_stroke_thickness_measures_the_width(darkness: float) -> None:
    widths = np.array([1.0, 2.0, 3.0, 4.0])
    # A bar of height h and width w has twice the area over the perimeter = w·h / (w + h).
    expected = widths * 21 / (widths + 21)
    measured = measure_stroke_thickness(np.stack([darkness * bars(width) for width in widths]))
    assert np.allclose(measured, expected, rtol=0.05)
    assert measure_stroke_thickness(np.zeros((1, 5, 5))).tolist() == [0]


def test_conversion_of_channels_and_size() -> None:
    plain, converted = load("digits"), load("digits", channels=3, size=16)
    assert converted.image_shape == (3, 16, 16)
    assert torch.equal(converted.images[:, 0], converted.images[:, 2])
    assert np.array_equal(converted.labels, plain.labels)
    assert converted.fingerprint != plain.fingerprint
    # Options that change nothing do not change what a trial is called.
    assert load("digits", channels=1, size=8).fingerprint == plain.fingerprint


def test_limit_is_a_fixed_choice_of_each_part() -> None:
    whole, limited = load("digits"), load("digits", limit=50)
    assert {part: len(indices) for part, indices in limited.parts.items()} == {"train": 50, "test": 50}
    assert set(np.bincount(limited.labels).tolist()) <= {8, 9, 10, 11, 12}
    assert limited.fingerprint == load("digits", limit=50).fingerprint != whole.fingerprint
    assert all(len(attribute.values) == 100 for attribute in limited.attributes.values())
    # Each image still has its own label and attributes: find it in the whole set.
    flat = whole.images.reshape(1797, -1)
    for position in (0, 33, 99):
        (place,) = torch.nonzero((flat == limited.images[position].reshape(-1)).all(1))[0].tolist()
        assert whole.labels[place] == limited.labels[position]
        assert whole.attributes["slant"].values[place] == limited.attributes["slant"].values[position]


def test_a_limit_beyond_the_size_changes_nothing() -> None:
    assert load("digits", limit=5000).fingerprint == load("digits").fingerprint
