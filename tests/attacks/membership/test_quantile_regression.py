"""Quantile regression: coverage of the quantiles, deviates by hand, and its gain where records differ in difficulty."""

import numpy as np
import pytest
from scipy import stats

from securitynet.attacks.membership._quantiles import (
    FEWEST,
    LEVELS,
    QuantileRegressor,
    convert_to_normal,
    extract_features,
)
from securitynet.errors import SplitError
from securitynet.metrics import roc


def made(n, seed=0, shift=0.0):
    """Scores whose mean and spread depend on the features."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, 3))
    spread = np.where(features[:, 1] > 0, 3.0, 0.5)
    return features, 4 * features[:, 0] + spread * (shift + generator.normal(size=n))


@pytest.fixture(scope="module")
def regression():
    return QuantileRegressor(*made(4000))


def test_quantiles_hold_as_many_new_records_as_they_say(regression):
    features, values = made(3000, seed=1)
    below = (values[:, None] < regression.quantiles(features)).mean(axis=0)
    np.testing.assert_allclose(below, LEVELS, atol=0.05)
    easy = features[:, 1] > 0
    for part in (easy, ~easy):  # conditional on the features, not only on average
        np.testing.assert_allclose(
            (values[part, None] < regression.quantiles(features[part])).mean(0), LEVELS, atol=0.08
        )


def test_it_comes_near_the_optimal_attack_where_a_common_threshold_can_not(regression):
    (member_features, member_values), (features, values) = made(2000, seed=1, shift=1.5), made(2000, seed=2)
    found = roc.measure_auc(
        regression.normal_scores(member_features, member_values), regression.normal_scores(features, values)
    )
    optimal = stats.norm.cdf(1.5 / np.sqrt(2))
    assert roc.measure_auc(member_values, values).high < 0.75 < optimal - 0.04 < found.value < optimal + 0.02


def test_scores_of_non_members_are_close_to_standard_normal(regression):
    scores = regression.normal_scores(*made(3000, seed=1))
    assert abs(np.median(scores)) < 0.1 and 0.8 < np.std(np.clip(scores, -4, 4)) < 1.3


def test_deviates_by_hand():
    quantiles = np.tile([0.0, 1.0, 4.0], (6, 1))
    levels, unit = (0.25, 0.5, 0.75), stats.norm.ppf(0.75)
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.5, 7.0])
    expected = [-2 * unit, -unit, -unit / 2, 0, unit / 2, 2 * unit]
    np.testing.assert_allclose(convert_to_normal(quantiles, values, levels), expected, atol=1e-4)


def test_deviates_rise_with_the_value_and_equal_quantiles_give_no_nan():
    generator = np.random.default_rng(0)
    values = np.linspace(-5, 5, 400)
    for row in (np.sort(generator.normal(size=5)), np.zeros(5), np.array([0, 0, 0, 1.0, 1.0])):
        scores = convert_to_normal(np.tile(row, (400, 1)), values, LEVELS)
        assert np.isfinite(scores).all() and (np.diff(scores) > 0).all()


def test_too_few_non_members_are_refused():
    with pytest.raises(SplitError, match=f"at least {FEWEST}"):
        QuantileRegressor(*made(FEWEST - 1))
    assert len(QuantileRegressor(*made(FEWEST)).quantiles(made(3)[0])) == 3


def test_equal_scores_are_no_error():
    features, _ = made(100)
    scores = QuantileRegressor(features, np.full(100, 2.0)).normal_scores(features, np.full(100, 2.0))
    assert np.isfinite(scores).all() and np.ptp(scores) < 1e-6


def test_components_are_learned_from_teachers_only():
    generator = np.random.default_rng(0)
    images, labels = generator.random((50, 20)), generator.integers(0, 3, 50)
    teachers = np.arange(50) < 30
    first = extract_features(images, labels, teachers, 3, components=5)
    changed = images.copy()
    changed[40:] += 7
    np.testing.assert_array_equal(extract_features(changed, labels, teachers, 3, components=5)[:40], first[:40])
    assert first.shape == (50, 8)
    np.testing.assert_array_equal(extract_features(None, labels, teachers, 3), np.eye(3)[labels])
