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
    found = statistics.estimate_correlation(*pairs, kind=kind)
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
        statistics.estimate_correlation(random.normal(size=20), random.normal(size=20), resamples=200, seed=n).p
        for n in range(120)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.12


def test_clusters_widen_the_interval():
    random = np.random.default_rng(1)
    family = np.repeat(np.arange(12), 15)
    centre = random.normal(size=(12, 2))
    x, y = (centre[family] + 0.05 * random.normal(size=(180, 2))).T
    plain = statistics.estimate_correlation(x, y)
    clustered = statistics.estimate_correlation(x, y, clusters=family)
    assert clustered.clusters == 12 and plain.clusters is None
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(100 + seed)
        centre = random.normal(size=(20, 2))  # no correlation between families
        x, y = (np.repeat(centre, 8, axis=0) + 0.1 * random.normal(size=(160, 2))).T
        found = statistics.estimate_correlation(x, y, clusters=np.repeat(np.arange(20), 8), resamples=300)
        covered += found.low <= 0 <= found.high
    assert covered >= 33


def test_strata_take_differences_between_datasets_away():
    random = np.random.default_rng(2)
    dataset = np.repeat(["a", "b"], 100)
    shift = np.where(dataset == "a", 0.0, 10.0)
    x, y = shift + random.normal(size=200), -shift + random.normal(size=200)
    assert statistics.estimate_correlation(x, y).value < -0.9
    within = statistics.estimate_correlation(x, y, strata=dataset)
    by_hand = [stats.pearsonr(x[dataset == d], y[dataset == d])[0] for d in "ab"]
    assert within.value == pytest.approx(np.mean(by_hand), abs=0.02)
    assert within.low < 0 < within.high and within.p > 0.05


def test_what_cannot_be_computed_says_why():
    few = statistics.estimate_correlation(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert not few.resolved and few.n == 3 and "fewer" in few.method
    flat = statistics.estimate_correlation(np.full(9, 0.1), np.arange(9.0))
    assert not flat.resolved and "vary" in flat.method
    missing = statistics.estimate_correlation(np.array([1, 2, np.nan, 4, 5, 6.0]), np.array([1, 2, 3, np.nan, 5, 6.0]))
    assert missing.n == 4 and missing.value == pytest.approx(1)


def test_differences_by_hand():
    first, second = np.array([0.5, 0.6, 0.7, np.nan]), np.array([0.4, 0.5, 0.57, 0.2])
    paired = statistics.estimate_paired_difference(first, second)
    assert paired.value == pytest.approx(-0.11) and paired.n == 3
    # Deviations 0.01, 0.01 and -0.02: a standard error of 0.01; t = 4.3027 with two degrees of freedom.
    assert paired.low == pytest.approx(-0.153027, abs=1e-6) and paired.high == pytest.approx(-0.066973, abs=1e-6)
    assert paired.p == pytest.approx(0.25, abs=0.03)  # signs of three pairs: 2 of 8 are as extreme
    groups = statistics.group_difference(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert groups.value == 2 and groups.p == pytest.approx(0.1056, abs=1e-4)  # t = 2√2 with two degrees of freedom


def test_corrections_keep_the_missing():
    assert statistics.adjust_p_values([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert statistics.adjust_p_values([0.01, None, 0.04], "fdr_bh")[2] == pytest.approx(0.04)
    assert statistics.adjust_p_values([None]) == [None]


def test_clustered_p_values_agree_with_their_intervals():
    random = np.random.default_rng(5)
    for seed in range(10):
        family = np.repeat(np.arange(10), 6)
        x, y = (random.normal(size=(10, 2))[family] + 0.3 * random.normal(size=(60, 2))).T
        found = statistics.estimate_correlation(x, y, clusters=family, resamples=500, seed=seed)
        assert (found.p > 0.055) == (found.low < 0 < found.high) or 0.045 < found.p < 0.055


def test_intervals_of_few_models_are_the_formulas():
    random = np.random.default_rng(7)
    values, others = random.normal(0.7, 0.1, 6), random.normal(0.6, 0.2, 5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = statistics.estimate_mean(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high)) and "Student" in found.method
    assert statistics.estimate_mean(np.array([0.9, 1.0, 1.0]), bounds=(0, 1)).high == 1
    expected = stats.ttest_rel(others, values[:5]).confidence_interval(0.95)
    paired = statistics.estimate_paired_difference(values[:5], others)
    assert (paired.low, paired.high) == pytest.approx((expected.low, expected.high))
    expected = stats.ttest_ind(others, values, equal_var=False).confidence_interval(0.95)
    groups = statistics.group_difference(values, others)
    assert (groups.low, groups.high) == pytest.approx((expected.low, expected.high)) and "Welch" in groups.method
    x = random.normal(size=9)
    y = x + random.normal(size=9)
    expected = stats.pearsonr(x, y).confidence_interval(0.95)
    found = statistics.estimate_correlation(x, y)
    assert found.low <= expected.low + 1e-9 and found.high >= expected.high - 1e-9 and "Fisher" in found.method


def test_intervals_of_few_models_hold_the_truth():
    random = np.random.default_rng(11)
    held = {"mean": 0, "correlation": 0, "difference": 0}
    for _ in range(200):
        a, b = random.normal(size=(2, 6))
        for name, found in (
            ("mean", statistics.estimate_mean(a)),
            ("correlation", statistics.estimate_correlation(a, b, resamples=20)),
            ("difference", statistics.group_difference(a, b)),
        ):
            held[name] += found.low <= 0 <= found.high
    assert min(held.values()) >= 180


def test_p_values_by_permutation_are_scipys():
    random = np.random.default_rng(17)
    a, b = random.normal(size=20), random.normal(0.6, 1, 20)

    def means(x, y, axis):
        return np.mean(y, axis=axis) - np.mean(x, axis=axis)

    options = {"vectorized": True, "n_resamples": 4000, "rng": np.random.default_rng(1)}
    paired = stats.permutation_test((a, b), means, permutation_type="samples", **options).pvalue
    assert statistics.estimate_paired_difference(a, b).p == pytest.approx(paired, abs=0.02)


def test_the_p_value_of_a_difference_goes_with_its_interval():
    """Of 8 models that are alike and 72 that are not, the p-value that pools their spread said nothing (0.37)."""
    random = np.random.default_rng(18)
    few, many = 0.038 + 0.005 * random.normal(size=8), 0.046 + 0.02 * random.normal(size=72)
    found = statistics.group_difference(few, many)
    assert found.low > 0 and found.p == pytest.approx(stats.ttest_ind(many, few, equal_var=False).pvalue)
    alike = statistics.group_difference(np.full(4, 0.3), np.full(5, 0.3))
    assert alike.value == 0 and alike.p == 1
    apart = statistics.group_difference(np.full(8, 0.3), np.full(8, 0.4))
    assert apart.p is None  # without any spread there is no test


def test_families_in_both_groups_are_drawn_together():
    random = np.random.default_rng(19)
    family = np.repeat(np.arange(10), 4)
    level = random.normal(0, 1, 10)[family]
    first, second = level + 0.1 * random.normal(size=40), level + 0.3 + 0.1 * random.normal(size=40)
    together = statistics.group_difference(first, second, clusters=(family, family))
    alone = statistics.group_difference(first, second)
    assert together.clusters == 10 and "10 families" in together.method
    assert together.high - together.low < 0.3 * (alone.high - alone.low)  # what families have in common drops out
    assert together.low < 0.3 < together.high and together.p < 0.01


def test_groups_are_compared_by_families():
    random = np.random.default_rng(23)
    values, names = random.normal(size=60), np.repeat(["a", "b", "c"], 20)
    h, p = statistics.rank_groups(values, names)
    expected = stats.kruskal(*(values[names == name] for name in "abc"))
    assert h == pytest.approx(expected.statistic) and p == pytest.approx(expected.pvalue, abs=0.03)
    small = {"models": 0, "families": 0}
    for seed in range(60):  # families differ, groups do not
        random = np.random.default_rng(seed)
        family = np.repeat(np.arange(12), 8)
        values = random.normal(size=12)[family] + 0.1 * random.normal(size=96)
        names = np.array(list("abc"))[family % 3]
        small["models"] += statistics.rank_groups(values, names, resamples=99)[1] <= 0.05
        small["families"] += statistics.rank_groups(values, names, clusters=family, resamples=99)[1] <= 0.05
    assert small["families"] <= 8 and small["models"] >= 30
    with pytest.raises(ValueError, match="one group"):
        statistics.rank_groups(np.arange(4.0), ["a"] * 4)


def test_adjusted_p_values_by_hand():
    p = [0.01, 0.04, 0.03, 0.5]
    assert statistics.adjust_p_values(p) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert statistics.adjust_p_values(p, "fdr_bh") == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_the_cluster_jackknife_is_one_written_with_loops():
    random = np.random.default_rng(13)
    family = np.repeat(np.arange(8), 5)
    values = random.normal(size=8)[family] + 0.1 * random.normal(size=40)
    without = np.array([values[family != one].mean() for one in range(8)])
    reach = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * ((without - values.mean()) ** 2).sum())
    found = statistics.estimate_mean(values, clusters=family)
    assert found.clusters == 8
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_equal_differences_are_no_certainty() -> None:
    """Accuracies over ten classes are often equal: two pairs that both differ by 0.2 show nothing."""
    from scipy.stats import binomtest

    for n in (2, 40):
        equal = statistics.estimate_paired_difference(np.zeros(n), np.full(n, 0.2))
        unseen = binomtest(0, n).proportion_ci(0.95).high
        np.testing.assert_allclose((equal.low, equal.high), (0.2 - 1.2 * unseen, 0.2 + 0.8 * unseen))
    assert equal.low > 0.05
    assert statistics.estimate_paired_difference(np.zeros(2), np.full(2, 3.0)).low == -np.inf
