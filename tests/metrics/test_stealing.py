"""Measures of stolen models, against hand-worked values, published examples and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics import stealing
from securitynet.records import Direction

LOWER = Direction.LOWER


def test_a_case_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2])
    target = np.array([0, 0, 1, 2, 0, 2])  # 4 of 6 right; errors: records 3 and 4
    surrogate = np.array([0, 1, 1, 2, 1, 2])  # 3 right (0, 2, 5); agrees on 0, 2, 3, 5
    confidence = np.array([0.9, 0.5, 0.8, 0.6, 0.7, 0.4])
    distances = np.array([0.1, 0.9, 0.2, 0.2, 0.9, 0.1])
    found = {m.name: m for m in stealing.measure_stealing(labels, target, surrogate, confidence, distances)}
    assert found["accuracy"].value == 3 / 6
    assert found["agreement"].value == 4 / 6
    assert found["accuracy-ratio"].value == 3 / 4
    assert (found["agreement-on-errors"].value, found["agreement-on-errors"].n) == (1 / 2, 2)
    assert found["constant-agreement"].value == 3 / 6
    assert found["calibration-gap"].value == pytest.approx(abs(3.9 / 6 - 0.5))
    assert found["posterior-distance"].value == pytest.approx(0.4)
    directions = {name: m.direction.value for name, m in found.items()}
    assert {name for name, way in directions.items() if way == "higher"} == {"calibration-gap", "posterior-distance"}


def test_what_cannot_be_measured_says_so():
    labels = np.array([0, 1, 0, 1])
    found = {m.name: m for m in stealing.measure_stealing(labels, labels, labels, np.ones(4), np.full(4, np.nan))}
    assert found["agreement-on-errors"].value is None and "no errors" in found["agreement-on-errors"].note
    assert found["posterior-distance"].value is None
    assert found["agreement"].value == found["agreement"].high == 1.0
    wrong = stealing.measure_stealing(labels, 1 - labels, labels, np.ones(4), np.zeros(4))
    ratio = next(m for m in wrong if m.name == "accuracy-ratio")
    assert ratio.value is None and "right on none" in ratio.note
    assert [m.value for m in stealing.measure_transfer(np.empty(0, bool), np.empty(0, bool))] == [None, None]
    with pytest.raises(ValueError, match="same records"):
        stealing.measure_stealing(labels, labels[:3], labels, np.ones(4), np.zeros(4))


def pairs(both, first, second, neither):
    one = np.repeat([True, True, False, False], [both, first, second, neither])
    two = np.repeat([True, False, True, False], [both, first, second, neither])
    return one, two


def draw(generator, n):
    """Two rates of 0.6 and 0.8 that go together."""
    second = generator.random(n) < 0.8
    return second & (generator.random(n) < 0.7) | ~second & (generator.random(n) < 0.2), second


def test_a_ratio_at_its_edges():
    none = stealing.measure_ratio("x", *pairs(0, 0, 30, 10), direction=LOWER)
    assert none.value == none.low == 0 and 0 < none.high < 0.3
    all_same = stealing.measure_ratio("x", *pairs(30, 0, 0, 0), direction=LOWER)
    assert all_same.low < all_same.value == 1 < all_same.high
    more = stealing.measure_ratio("x", *pairs(200, 20, 5, 75), direction=LOWER)
    assert more.low > 1.0


def test_transfer_against_noise():
    fooled, noise = pairs(10, 40, 0, 50)
    found = {m.name: m for m in stealing.measure_transfer(fooled, noise)}
    assert found["transfer"].value == 0.5 and found["transfer-gain"].value == 0.4
    assert found["transfer-gain"].low > 0.25
