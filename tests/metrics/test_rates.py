"""Rates against values worked out by hand and published ones."""

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import rates
from securitynet.records import Direction


@pytest.mark.parametrize("successes", [0, 7, 20])
def test_rate_stays_in_range_and_holds_its_value(successes):
    measured = rates.rate("r", successes, 20, direction=Direction.HIGHER)
    assert 0 <= measured.low <= measured.value <= measured.high <= 1
    assert measured.high - measured.low > 0.1


def test_mean_of_two_rates_narrows_with_n():
    small = rates.combine_rates((8, 10), (5, 10), (0.5, 0.5), 0.95)
    large = rates.combine_rates((800, 1000), (500, 1000), (0.5, 0.5), 0.95)
    assert small[0] == pytest.approx(large[0]) == pytest.approx(0.65)
    assert large[2] - large[1] < (small[2] - small[1]) / 5


@pytest.mark.parametrize("successes, n", [(0, 10), (3, 10), (10, 10), (49_999, 50_000)])
def test_the_exact_interval_is_scipys(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert rates.compute_clopper_pearson(successes, n, 0.95) == pytest.approx((expected.low, expected.high))


def test_a_mean_of_zeros_and_ones_has_the_exact_interval():
    values = np.repeat([1.0, 0.0], [7, 23])
    assert rates.compute_bounded_mean(values, (0, 1), 0.95) == pytest.approx(
        tuple(map(float, rates.compute_clopper_pearson(7, 30, 0.95)))
    )


def test_a_bounded_mean_has_the_quantiles_of_random_weights():
    generator = np.random.default_rng(0)
    values = generator.beta(0.5, 3, 40)
    weights = generator.dirichlet(np.ones(41), 40_000)
    upper = np.quantile(weights @ np.append(values, 1.0), 0.975)
    lower = np.quantile(weights @ np.append(values, 0.0), 0.025)
    assert rates.compute_bounded_mean(values, (0, 1), 0.95) == pytest.approx((lower, upper), abs=0.006)
