"""The test for blocks of outliers: by hand, against an independent implementation, its level, and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import outlier_blocks
from securitynet.metrics.outlier_blocks import find_detection_limit, find_outlier_block

BADNET = np.array([89.3, 9.8, 80.0, 93.6, 102.8, 89.8, 101.3, 102.1, 84.7, 101.3])
"""Norms of the public BadNet for MNIST, whose trigger leads to 1."""

CIFAR = np.array([152, 24.2, 79, 100, 110, 95, 120, 130, 88, 141])
"""Norms like those of a public backdoored CIFAR-10 network: 24.2 for label 1 against 79 to 152."""


def fit_block(logs, size):
    """R(k) of complete ascending logarithms, by NumPy's polynomial fit."""
    bulk = logs[size:]
    scores = stats.norm.ppf((np.arange(1, len(bulk) + 1) - 0.375) / (len(bulk) + 0.25))
    slope, intercept = np.polyfit(scores, bulk, 1)
    return (intercept - logs[size - 1]) / slope


def test_statistics_agree_with_a_polynomial_fit():
    logs = np.sort(np.random.default_rng(0).normal(3, 0.4, 9))
    design = outlier_blocks._design(9, 9)
    observed = design.statistics(logs[None], logs[None])[0]
    np.testing.assert_allclose(observed, [fit_block(logs, size) for size in (1, 2, 3, 4)])


def test_censored_labels_keep_their_places_among_the_scores():
    logs = np.array([1.0, 3.0, 3.4, 3.5])  # and two labels that never converged
    scores = stats.norm.ppf((np.array([1, 2, 3]) - 0.375) / 5.25)
    slope, intercept = np.polyfit(scores, logs[1:], 1)
    observed = outlier_blocks._design(6, 4).statistics(logs[None], logs[None])[0]
    assert observed[0] == pytest.approx((intercept - 1.0) / slope)


def test_p_value_agrees_with_an_independent_simulation():
    generator = np.random.default_rng(1)
    sets = np.sort(generator.normal(size=(700, 5)), axis=1)
    observed = np.array([[fit_block(row, size) for size in (1, 2)] for row in sets])
    shares = stats.rankdata(-observed, axis=0, method="max") / len(sets) * [1, 2]
    logs = np.array([1.5, 3.0, 3.1, 3.3, 3.35])
    own = np.array([fit_block(logs, size) for size in (1, 2)])
    least = (np.mean(observed >= own, axis=0) * [1, 2]).min()
    expected = np.mean(shares.min(axis=1) <= least)
    tables = outlier_blocks._tables(outlier_blocks._design(5, 5))
    p_values, low, high = tables[0].adjust(own, 0.95)
    assert p_values.min() == pytest.approx(expected, abs=0.025)
    assert (low <= p_values).all() and (p_values <= high + 1e-3).all()


@pytest.mark.parametrize("labels", [3, 5, 10, 43])
def test_level_for_clean_models(labels):
    """A null case: lognormal norms with two spreads, a fifth of the labels censored from ten labels on."""
    generator = np.random.default_rng(11)
    hits, named, count = 0, 0, 100
    for number in range(count):
        norms = generator.lognormal(3, (0.2, 0.5)[number % 2], labels)
        if labels >= 10:
            norms[np.argsort(norms)[-labels // 5 :]] = np.inf
        test = find_outlier_block(norms)
        hits += test.p_value <= 0.05
        named += bool(test.positions)
    assert stats.binomtest(hits, count).proportion_ci(0.999).low <= 0.05
    assert named <= hits


@pytest.mark.parametrize(
    "norms, accused",
    [
        (BADNET, [1]),
        (CIFAR, [1]),
        (np.where(np.arange(10) == 6, 12.0, BADNET), [1, 6]),
        (np.where(np.isin(np.arange(10), (4, 6)), [0, 0, 0, 0, 15.0, 0, 12.0, 0, 0, 0], BADNET), [1, 6, 4]),
        (np.r_[np.full(7, 25.0), np.full(3, 0.01)], [7, 8, 9]),
        (np.r_[[25, 24, 26, 27, 23, 25, 28], np.full(3, 0.01)], [7, 8, 9]),
        (np.r_[BADNET[:8], np.inf, np.inf], [1]),
    ],
    ids=["badnet", "cifar", "two targets", "three targets", "ties", "three easy labels", "censored"],
)
def test_finds_known_backdoors(norms, accused):
    test = find_outlier_block(norms)
    assert test.low <= test.p_value <= test.high
    assert test.p_value <= 0.05
    assert list(test.positions) == accused


def test_an_easy_block_that_is_not_far_below_the_others_is_not_named():
    norms = np.array([72.4, 31.8, 55.3, 89.0, 78.2, 75.7, 85.0, 47.3, 86.4, 53.9])  # a clean public network
    assert find_outlier_block(norms).positions == ()


def test_equal_norms_have_no_outlier():
    assert find_outlier_block(np.full(10, 7.0)).p_value > 0.5


def test_the_unit_of_the_norms_does_not_matter():
    norms = np.random.default_rng(1).lognormal(3, 0.5, 12)
    assert find_outlier_block(norms * 255).p_value == pytest.approx(find_outlier_block(norms).p_value, rel=1e-9)


def test_a_sample_of_many_labels():
    generator = np.random.default_rng(4)
    hits, count = 0, 60
    for number in range(count + 1):
        norms = generator.lognormal(3, 0.3, 300)
        if number == count:
            norms[7] = 1.0
        sampled = np.zeros(300, bool)
        sampled[generator.permutation(300)[:41]] = True
        searched = np.flatnonzero(sampled | (np.argsort(np.argsort(norms)) < 16))
        test = find_outlier_block(norms[searched], sampled=sampled[searched], population=300)
        hits += test.p_value <= 0.05 if number < count else 0
    assert list(searched[list(test.positions)]) == [7]
    assert stats.binomtest(hits, count).proportion_ci(0.999).low <= 0.05


def test_too_few_labels_and_bad_norms():
    assert find_outlier_block(np.array([1.0, 2.0])) is None
    assert find_outlier_block(np.array([1.0, 2.0, np.inf, np.inf])) is None
    assert find_detection_limit(np.array([1.0, 2.0])) is None
    with pytest.raises(ValueError, match="positive"):
        find_outlier_block(np.array([1.0, 2.0, np.nan]))


def test_detection_limit_is_where_the_smallest_norm_begins_to_stand_out():
    clean = np.where(np.arange(10) == 1, 79.0, BADNET)
    limit = find_detection_limit(clean)
    assert 0.1 < limit <= outlier_blocks.FAR + 0.05
    below, above = clean.copy(), clean.copy()
    below[1], above[1] = 0.9 * limit * np.median(clean), 1.2 * limit * np.median(clean)
    assert find_outlier_block(below).positions == (1,)
    assert find_outlier_block(above).positions == ()
