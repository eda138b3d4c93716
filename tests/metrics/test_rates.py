"""Rates against values worked out by hand and published ones."""

import pytest

from securitynet.metrics import rates
from securitynet.records import Direction


def test_wilson_by_hand():
    # 8 of 10 at z = 1.959964: centre (8 + z²/2) / (10 + z²), half-width z·sqrt(10·0.16 + z²/4) / (10 + z²).
    z2 = 1.959964**2
    centre, half = (8 + z2 / 2) / (10 + z2), (1.959964 / (10 + z2)) * (1.6 + z2 / 4) ** 0.5
    assert rates.wilson(8, 10, 0.95) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_difference_is_newcombes_published_example():
    # Newcombe (1998), example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    measured = rates.difference("d", (56, 70), (48, 80), direction=Direction.LOWER)
    assert measured.value == pytest.approx(0.2)
    assert (measured.low, measured.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


@pytest.mark.parametrize("successes", [0, 7, 20])
def test_rate_stays_in_range_and_holds_its_value(successes):
    measured = rates.rate("r", successes, 20, direction=Direction.HIGHER)
    assert 0 <= measured.low <= measured.value <= measured.high <= 1
    assert measured.high - measured.low > 0.1


def test_mean_of_two_rates_narrows_with_n():
    small = rates.combine((8, 10), (5, 10), (0.5, 0.5), 0.95)
    large = rates.combine((800, 1000), (500, 1000), (0.5, 0.5), 0.95)
    assert small[0] == pytest.approx(large[0]) == pytest.approx(0.65)
    assert large[2] - large[1] < (small[2] - small[1]) / 5
