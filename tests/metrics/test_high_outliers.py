"""Tests of the largest class statistic: by hand, against SciPy's fit, and at their level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics.high_outliers import compute_gamma_p_value, find_high_outlier


def test_grubbs_by_hand():
    outlier = find_high_outlier(np.array([1.0, 9.0, 2.0, 3.0, 2.0]))
    # The others: mean 2, variance 2/3; t = 7 / (sqrt(2/3) * sqrt(5/4)) = 7.668 with 3 degrees of freedom.
    assert outlier.position == 1
    assert outlier.deviate == pytest.approx(7.668, abs=1e-3)
    # Tail of t with 3 degrees of freedom in closed form.
    x = outlier.deviate / np.sqrt(3)
    tail = 0.5 - (np.arctan(x) + x / (1 + x * x)) / np.pi
    assert outlier.p_value == pytest.approx(5 * tail, rel=1e-9)


def test_grubbs_holds_its_level_on_normal_draws_and_finds_what_stands_out():
    random = np.random.default_rng(0)
    draws = random.normal(5, 2, (2000, 10))
    rate = np.mean([find_high_outlier(row).p_value <= 0.05 for row in draws])
    assert 0.035 < rate < 0.06
    draws[:200, 3] += 16
    outliers = [find_high_outlier(row) for row in draws[:200]]
    assert np.mean([one.position == 3 and one.p_value <= 0.05 for one in outliers]) > 0.9


def test_gamma_p_value_agrees_with_scipys_fit():
    values = np.random.default_rng(1).gamma(20, 2, 10)
    others = np.delete(values, values.argmax())
    shape, _, scale = stats.gamma.fit(others, floc=0)
    expected = 1 - stats.gamma.cdf(values.max(), shape, scale=scale) ** 10
    assert compute_gamma_p_value(values) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_tested():
    assert find_high_outlier(np.array([1.0, 2.0, 9.0])) is None
    assert find_high_outlier(np.ones(8)) is None
    assert find_high_outlier(np.array([1.0, 1.0, 1.0, 2.0])).p_value < 1e-300
    assert compute_gamma_p_value(np.array([1.0, -1.0, 2.0, 3.0])) is None
    assert compute_gamma_p_value(np.array([1.0, 1.0, 1.0, 2.0])) is None
