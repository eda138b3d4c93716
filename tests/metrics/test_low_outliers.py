"""The rule of Neural Cleanse and the calibrated test of the smallest norm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import low_outliers


def test_anomaly_indices_by_hand():
    # Median of ten is the mean of the middle two (5.5); deviations 4.5, 3.5, ..., so their median is 2.5.
    indices = low_outliers.anomaly_indices(np.arange(1.0, 11.0))
    np.testing.assert_allclose(indices, (5.5 - np.arange(1, 11)) / (1.4826 * 2.5))


def test_anomaly_indices_agree_with_scipy():
    values = np.random.default_rng(0).gamma(3.0, size=43)
    deviation = stats.median_abs_deviation(values, scale=1 / 1.4826)
    np.testing.assert_allclose(low_outliers.anomaly_indices(values), (np.median(values) - values) / deviation)


def test_equal_values_have_no_outlier_and_the_one_that_differs_is_far_away():
    assert list(low_outliers.anomaly_indices(np.array([5.0, 5, 5, 5, 1]))) == [0, 0, 0, 0, np.inf]
    assert low_outliers.low_outlier(np.full(10, 7.0)).p_value > 0.5


@pytest.mark.parametrize("labels, expected", [(10, 0.33), (43, 0.64), (100, 0.88)])
def test_the_rule_flags_as_many_normal_draws_as_it_is_known_to(labels, expected):
    flagged, drawn = low_outliers.rule_false_positives(labels)
    assert flagged / drawn == pytest.approx(expected, abs=0.015)


def draws(kind, labels, generator):
    spread = {"normal": lambda: generator.normal(50, 10, labels), "standard": lambda: generator.normal(0, 1, labels)}
    return spread[kind]() if kind in spread else generator.lognormal(3, float(kind), labels)


@pytest.mark.parametrize("labels", [10, 43, 100])
@pytest.mark.parametrize("kind", ["normal", "standard", "0.3", "1.0"])
def test_five_percent_are_five_percent(kind, labels):
    generator = np.random.default_rng(11)
    tests = [low_outliers.low_outlier(draws(kind, labels, generator)).p_value for _ in range(800)]
    hits = int((np.array(tests) <= 0.05).sum())
    # Exact 99.9% limits, widened by a point and a half: no test of a few values holds the level to the dot for both.
    interval = stats.binomtest(hits, len(tests)).proportion_ci(0.999)
    assert interval.low - 0.015 <= 0.05 <= interval.high + 0.015


@pytest.mark.parametrize("shape", ["normal", "lognormal"])
def test_a_known_shape_has_its_level_exactly(shape):
    generator = np.random.default_rng(3)
    values = generator.normal(5, 1, (3000, 10))
    values = np.exp(values) if shape == "lognormal" else values
    hits = sum(low_outliers.low_outlier(row, shape=shape).p_value <= 0.05 for row in values)
    interval = stats.binomtest(hits, len(values)).proportion_ci(0.99)
    assert interval.low <= 0.05 <= interval.high


def test_location_and_scale_of_a_normal_do_not_matter():
    values = np.random.default_rng(1).normal(size=12)
    one = low_outliers.low_outlier(values, shape="normal")
    other = low_outliers.low_outlier(1000 + 7 * values, shape="normal")
    assert one.p_value == other.p_value
    assert one.statistic == pytest.approx(other.statistic)


def test_the_unit_of_the_norms_does_not_matter():
    values = np.random.default_rng(1).lognormal(3, 0.5, 12)
    p_value = low_outliers.low_outlier(values).p_value
    assert low_outliers.low_outlier(values * 255).p_value == pytest.approx(p_value, rel=1e-9)


def test_a_planted_norm_is_an_outlier_and_the_others_are_not():
    values = np.array([89.3, 9.8, 80.0, 93.6, 102.8, 89.8, 101.3, 102.1, 84.7, 101.3])  # the BadNet of the shared data
    test = low_outliers.low_outlier(values)
    assert test.low <= test.p_value <= test.high < 0.02
    assert low_outliers.suspects(values) == [1]


def test_a_second_outlier_does_not_hide_the_first_among_many_labels():
    generator = np.random.default_rng(5)
    values = generator.normal(60, 9, 43)
    values[[7, 20]] = [4.0, 5.0]
    assert low_outliers.suspects(values) == [7, 20]


def test_the_p_value_falls_with_the_smallest_norm():
    values = np.random.default_rng(2).normal(50, 8, 10)
    found = []
    for least in (42.0, 20.0, 10.0, 3.0):
        values[values.argmin()] = least
        found.append(low_outliers.low_outlier(values).p_value)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.05 < found[0]


def test_few_values_and_values_that_are_not_finite():
    assert low_outliers.low_outlier(np.array([1.0, 2, 3])) is None
    with pytest.raises(ValueError, match="finite"):
        low_outliers.low_outlier(np.array([1.0, 2, 3, np.inf]))


def test_a_sample_of_a_population_has_the_level_too():
    generator = np.random.default_rng(4)
    hits = 0
    for _ in range(1500):
        values = generator.normal(50, 8, 200)
        least = values.argmin()
        others = np.delete(values, least)[:40]
        hits += low_outliers.low_outlier(np.r_[values[least], others], population=200, shape="normal").p_value <= 0.05
    interval = stats.binomtest(hits, 1500).proportion_ci(0.99)
    assert interval.low <= 0.05 <= interval.high


def test_reference_models_make_a_p_value_without_a_shape():
    generator = np.random.default_rng(6)
    usual = generator.uniform(20, 80, 10)  # labels differ, one is always low
    usual[3] = 5.0

    def norms():
        return usual * np.exp(generator.normal(0, 0.1, 10))

    values = [low_outliers.against_reference(norms(), [norms() for _ in range(19)]) for _ in range(400)]
    assert min(values) == pytest.approx(1 / 20)
    hits = sum(value <= 0.05 for value in values)
    interval = stats.binomtest(hits, len(values)).proportion_ci(0.99)
    assert interval.low <= 0.05 <= interval.high
    planted = norms()
    planted[6] = 4.0
    assert low_outliers.against_reference(planted, [norms() for _ in range(19)]) == pytest.approx(1 / 20)
    assert low_outliers.against_reference(norms(), []) is None
