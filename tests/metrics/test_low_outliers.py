"""The rule of Neural Cleanse, and the comparison with clean models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import low_outliers


def test_anomaly_indices_by_hand():
    # Median of ten is the mean of the middle two (5.5); deviations 4.5, 3.5, ..., so their median is 2.5.
    indices = low_outliers.compute_anomaly_indices(np.arange(1.0, 11.0))
    np.testing.assert_allclose(indices, (5.5 - np.arange(1, 11)) / (1.4826 * 2.5))


def test_anomaly_indices_agree_with_scipy():
    values = np.random.default_rng(0).gamma(3.0, size=43)
    deviation = stats.median_abs_deviation(values, scale=1 / 1.4826)
    np.testing.assert_allclose(low_outliers.compute_anomaly_indices(values), (np.median(values) - values) / deviation)


def test_equal_values_have_no_outlier_and_the_one_that_differs_is_far_away():
    assert list(low_outliers.compute_anomaly_indices(np.array([5.0, 5, 5, 5, 1]))) == [0, 0, 0, 0, np.inf]


@pytest.mark.parametrize("labels, expected", [(10, 0.33), (43, 0.64), (100, 0.88)])
def test_the_rule_flags_as_many_normal_draws_as_it_is_known_to(labels, expected):
    flagged, drawn = low_outliers.count_rule_false_positives(labels)
    assert flagged / drawn == pytest.approx(expected, abs=0.015)


def test_reference_models_make_a_p_value_without_a_shape():
    generator = np.random.default_rng(6)
    usual = generator.uniform(20, 80, 10)  # labels differ, one is always low
    usual[3] = 5.0

    def norms():
        return usual * np.exp(generator.normal(0, 0.1, 10))

    values = [low_outliers.compare_with_reference(norms(), [norms() for _ in range(19)]) for _ in range(400)]
    assert min(values) == pytest.approx(1 / 20)
    hits = sum(value <= 0.05 for value in values)
    interval = stats.binomtest(hits, len(values)).proportion_ci(0.99)
    assert interval.low <= 0.05 <= interval.high
    planted = norms()
    planted[6] = 4.0
    assert low_outliers.compare_with_reference(planted, [norms() for _ in range(19)]) == pytest.approx(1 / 20)
    assert low_outliers.compare_with_reference(norms(), []) is None


def test_labels_that_never_converge_count_as_large_against_clean_models():
    generator = np.random.default_rng(8)
    reference = [np.r_[generator.lognormal(3, 0.1), np.inf] for _ in range(19)]
    assert low_outliers.compare_with_reference(np.array([20.0, np.inf]), reference) > 0.05
    assert low_outliers.compare_with_reference(np.array([2.0, np.inf]), reference) == pytest.approx(1 / 20)
