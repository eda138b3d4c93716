"""Correlations, differences and groups: against SciPy, by hand, and where there is nothing to find."""

import numpy as np
import pytest
from scipy import stats

from securitynet.analysis import statistics


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(3)
    x = random.normal(size=80)
    return x, 0.6 * x + random.normal(size=80)


@pytest.mark.parametrize("kind, reference", [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlation_is_scipys_and_its_p_value_agrees(pairs, kind, reference):
    found = statistics.correlation(*pairs, kind=kind)
    expected = reference(*pairs)
    assert found.value == pytest.approx(expected[0], abs=1e-12)
    assert found.p == pytest.approx(1 / 2001)  # SciPy's is below 1e-6, which no 2,000 permutations can show
    assert found.low < found.value < found.high
    if kind == "pearson":
        low, high = expected.confidence_interval(0.95)
        assert found.low == pytest.approx(low, abs=0.07) and found.high == pytest.approx(high, abs=0.07)


def test_p_values_are_uniform_where_there_is_nothing():
    random = np.random.default_rng(0)
    p = [
        statistics.correlation(random.normal(size=20), random.normal(size=20), resamples=200, seed=n).p
        for n in range(120)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.12


def test_clusters_widen_the_interval():
    random = np.random.default_rng(1)
    family = np.repeat(np.arange(12), 15)
    centre = random.normal(size=(12, 2))
    x, y = (centre[family] + 0.05 * random.normal(size=(180, 2))).T
    plain = statistics.correlation(x, y)
    clustered = statistics.correlation(x, y, clusters=family)
    assert clustered.clusters == 12 and plain.clusters is None
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(100 + seed)
        centre = random.normal(size=(20, 2))  # no correlation between families
        x, y = (np.repeat(centre, 8, axis=0) + 0.1 * random.normal(size=(160, 2))).T
        found = statistics.correlation(x, y, clusters=np.repeat(np.arange(20), 8), resamples=300)
        covered += found.low <= 0 <= found.high
    assert covered >= 33


def test_strata_take_differences_between_datasets_away():
    random = np.random.default_rng(2)
    dataset = np.repeat(["a", "b"], 100)
    shift = np.where(dataset == "a", 0.0, 10.0)
    x, y = shift + random.normal(size=200), -shift + random.normal(size=200)
    assert statistics.correlation(x, y).value < -0.9
    within = statistics.correlation(x, y, strata=dataset)
    by_hand = [stats.pearsonr(x[dataset == d], y[dataset == d])[0] for d in "ab"]
    assert within.value == pytest.approx(np.mean(by_hand), abs=0.02)
    assert within.low < 0 < within.high and within.p > 0.05


def test_what_cannot_be_computed_says_why():
    few = statistics.correlation(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert not few.resolved and few.n == 3 and "fewer" in few.method
    flat = statistics.correlation(np.full(9, 0.1), np.arange(9.0))
    assert not flat.resolved and "vary" in flat.method
    missing = statistics.correlation(np.array([1, 2, np.nan, 4, 5, 6.0]), np.array([1, 2, 3, np.nan, 5, 6.0]))
    assert missing.n == 4 and missing.value == pytest.approx(1)


def test_differences_by_hand():
    first, second = np.array([0.5, 0.6, 0.7, np.nan]), np.array([0.4, 0.5, 0.6, 0.2])
    paired = statistics.paired_difference(first, second)
    assert paired.value == pytest.approx(-0.1) and paired.n == 3
    assert paired.low == pytest.approx(-0.1) and paired.high == pytest.approx(-0.1)
    assert paired.p == pytest.approx(0.25, abs=0.03)  # signs of three pairs: 2 of 8 are as extreme
    groups = statistics.group_difference(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert groups.value == 2 and groups.p == pytest.approx(1 / 3, abs=0.04)  # 2 of 6 ways to label
    ratio = statistics.ratio_of_means(np.array([0.2, 0.4]), np.array([0.5, 0.7]))
    assert ratio.value == pytest.approx(0.5)


def test_corrections_keep_the_missing():
    assert statistics.adjusted([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert statistics.adjusted([0.01, None, 0.04], "fdr_bh")[2] == pytest.approx(0.04)
    assert statistics.adjusted([None]) == [None]


def test_clustered_p_values_agree_with_their_intervals():
    random = np.random.default_rng(5)
    for seed in range(10):
        family = np.repeat(np.arange(10), 6)
        x, y = (random.normal(size=(10, 2))[family] + 0.3 * random.normal(size=(60, 2))).T
        found = statistics.correlation(x, y, clusters=family, resamples=500, seed=seed)
        assert (found.p > 0.055) == (found.low < 0 < found.high) or 0.045 < found.p < 0.055
