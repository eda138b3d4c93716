"""Paired differences: published values, coverage, and what can't be."""

import numpy as np
import pytest

from securitynet.metrics import paired
from securitynet.records import Direction


def outcomes(both, only_first, only_second, neither):
    counts = (both, only_first, only_second, neither)
    first = np.repeat([True, True, False, False], counts)
    return first, np.repeat([True, False, True, False], counts)


def test_swapping_the_two_mirrors_the_interval():
    first, second = outcomes(40, 11, 5, 20)
    value, low, high = paired.compute_paired_interval(first, second, 0.9)
    assert paired.compute_paired_interval(second, first, 0.9) == pytest.approx((-value, -high, -low))


@pytest.mark.parametrize("equal", [(50, 0, 0, 0), (0, 0, 0, 50), (20, 0, 0, 30)])
def test_equal_outcomes_leave_an_interval_around_nothing(equal):
    value, low, high = paired.compute_paired_interval(*outcomes(*equal), 0.95)
    assert value == 0 and low < 0 < high and high < 0.08


@pytest.mark.parametrize("rates", [(0.6, 0.2, 0.05, 0.15), (0.1, 0.05, 0.05, 0.8), (0.9, 0.06, 0.02, 0.02)])
def test_coverage(rates):
    generator = np.random.default_rng(1)
    truth = rates[1] - rates[2]
    hit = 0
    for _ in range(600):
        _, low, high = paired.compute_paired_interval(*outcomes(*generator.multinomial(120, rates)), 0.95)
        hit += low <= truth <= high
    assert hit / 600 > 0.93


def test_pairs_narrow_the_interval():
    first, second = outcomes(80, 10, 2, 28)
    together = paired.measure_paired_difference("gain", first, second, direction=Direction.LOWER)
    generator = np.random.default_rng(0)
    apart = paired.measure_paired_difference("gain", first, generator.permutation(second), direction=Direction.LOWER)
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low < 0.7 * (apart.high - apart.low)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        paired.compute_paired_interval(np.zeros(0, bool), np.zeros(0, bool), 0.95)
