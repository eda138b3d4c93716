"""Asymmetric pairs of classes: the fit against least squares, one pair against statsmodels, mappings, and the level."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api

from securitynet.metrics.class_pairs import compute_residuals, find_asymmetry


def draw(random, count=8, noise=0.2):
    """Logarithms of norms: alike classes are easy both ways, and some classes are easier to reach or to leave."""
    alike = random.normal(size=(count, count))
    reach, leave = random.normal(size=(2, count))
    return alike + alike.T + reach[None, :] + leave[:, None] + noise * random.normal(size=(count, count))


def test_residuals_and_p_value_are_those_of_a_regression():
    logarithms = draw(np.random.default_rng(0), count=6)
    logarithms[4, 1] -= 1.0
    pairs = [(s, t) for s in range(6) for t in range(s + 1, 6)]
    differences = np.array([logarithms[s, t] - logarithms[t, s] for s, t in pairs])
    design = np.zeros((len(pairs), 6))
    for row, (s, t) in enumerate(pairs):
        design[row, t], design[row, s] = 1.0, -1.0
    fit = statsmodels.api.OLS(differences, design[:, 1:]).fit()  # the first height is 0
    residuals = compute_residuals(np.where(np.eye(6), 0.0, logarithms - logarithms.T))
    np.testing.assert_allclose([residuals[s, t] for s, t in pairs], fit.resid, atol=1e-12)
    outliers = fit.outlier_test(method="bonf")
    asymmetry = find_asymmetry(logarithms)
    assert asymmetry.pair == (4, 1)
    assert asymmetry.pair_p_value == pytest.approx(outliers[:, 2].min(), rel=1e-9)


def test_level_where_no_class_is_special():
    random = np.random.default_rng(1)
    rate = np.mean(
        [find_asymmetry(draw(random, count=6), seed=trial, flips=79).p_value <= 0.05 for trial in range(100)]
    )
    assert rate <= 0.1  # 5% would exceed this in fewer than 2 of 100 runs


def test_one_pair_and_a_mapping_of_all_are_found():
    random = np.random.default_rng(2)
    one = draw(random)
    one[5, 2] -= 1.5
    asymmetry = find_asymmetry(one)
    assert (asymmetry.pair, asymmetry.pair_p_value <= 0.01) == ((5, 2), True)
    assert asymmetry.residual == pytest.approx(-1.5 * (1 - 2 / 8), abs=0.7)
    every = draw(random)
    every[np.arange(8), (np.arange(8) + 1) % 8] -= 1.5
    asymmetry = find_asymmetry(every)
    assert asymmetry.mapping == tuple((np.arange(8) + 1) % 8)
    assert asymmetry.mapping_p_value <= 0.03


def test_a_backdoor_to_one_class_is_part_of_the_fit():
    logarithms = draw(np.random.default_rng(3))
    before = find_asymmetry(logarithms)
    logarithms[:, 3] -= 4.0
    after = find_asymmetry(logarithms)
    assert after.pair_p_value == pytest.approx(before.pair_p_value, rel=1e-6)


def test_what_cannot_be_tested():
    assert find_asymmetry(np.ones((4, 4))) is None
    assert find_asymmetry(np.ones((6, 6))) is None
