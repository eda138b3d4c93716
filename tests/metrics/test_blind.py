"""The blind baseline: an independent ridge regression, its level where groups do not differ, its power, matching."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from securitynet.metrics import blind, roc


def flag(features: np.ndarray, members: int, seed: int) -> tuple[bool, bool]:
    """Whether the interval for random groups of these records lies above 0.5, and whether below."""
    rows = np.random.default_rng(seed).permutation(len(features))
    auc = blind.fit_blind(features[rows], np.arange(len(rows)) < members, seed=seed).auc()
    assert auc.low is not None and auc.high is not None
    return auc.low > 0.5, auc.high < 0.5


@pytest.mark.parametrize("width", [8, 90])
def test_scores_are_those_of_scikit_learns_ridge(width):
    random = np.random.default_rng(0)
    known, asked = random.normal(size=(60, width)), random.normal(size=(20, width))
    truth = (random.random(60) < 0.4).astype(float)
    expected = Ridge(alpha=blind.RIDGE * 60, fit_intercept=False).fit(known, truth - truth.mean()).predict(asked)
    assert blind._predict(known, truth[:, None], asked)[:, 0] == pytest.approx(expected)


def test_normal_scores_are_those_of_ranks():
    values = np.array([[3.0, 1.0, 5.0], [9.0, 1.0, 5.0], [1.0, 2.0, 5.0], [4.0, 1.0, 5.0]])
    scores = blind.make_normal(values)
    assert scores.shape == (4, 2)  # the third does not vary
    assert scores.std(axis=0) == pytest.approx(1) and scores.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert stats.rankdata(scores[:, 0]).tolist() == [2, 4, 1, 3]


def test_groups_that_differ_are_told_apart_and_the_interval_holds_what_new_fits_give():
    random = np.random.default_rng(1)
    values = []
    for seed in range(12):
        features = random.normal(size=(300, 20))
        features[:150, 3] += 1.0
        fitted = blind.fit_blind(features, np.arange(300) < 150, seed=seed)
        values.append(fitted.auc())
    assert all(m.low > 0.5 for m in values)
    middle = float(np.median([m.value for m in values]))
    assert sum(m.low <= middle <= m.high for m in values) >= 11


def test_random_groups_are_seldom_said_to_differ():
    features = np.random.default_rng(2).normal(size=(100, 30))
    flagged = np.sum([flag(features, 50, seed) for seed in range(40)], axis=0)
    assert (flagged <= stats.binom.isf(0.001, 40, 0.025)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("members", "non_members", "runs"), [(50, 50, 800), (30, 200, 600), (200, 200, 400), (1000, 500, 150)]
)
def test_level_where_groups_do_not_differ(members, non_members, runs):
    """Nominal: 2.5%. The interval of independent scores says so about twice as often."""
    random = np.random.default_rng(3)
    mixing = random.normal(size=(120, 120)) / 11  # features that depend on one another, as those of images do
    flagged = plain = 0
    for seed in range(runs):
        features = np.exp(random.normal(size=(members + non_members, 120)) @ mixing)
        fitted = blind.fit_blind(features, np.arange(len(features)) < members, seed=seed)
        flagged += fitted.auc().low > 0.5
        scores = fitted.scores[:members], fitted.scores[members:]
        plain += roc.measure_auc(*scores).low > 0.5
    assert flagged <= stats.binom.isf(0.001, runs, 0.025)
    assert plain >= flagged


def test_matching_pairs_neighbours_within_the_caliper():
    scores = np.array([0.0, 0.01, 1.0, 1.02, 5.0, 9.0])
    is_member = np.array([True, False, False, True, True, False])
    one, other = blind.match(scores, is_member, caliper=0.1)
    assert sorted(zip(one.tolist(), other.tolist(), strict=True)) == [(0, 1), (3, 2)]


def test_matched_groups_do_not_differ_any_more():
    random = np.random.default_rng(4)
    features = random.normal(size=(1200, 5))
    is_member = random.random(1200) < 1 / (1 + np.exp(-1.5 * features[:, 0]))
    fitted = blind.fit_blind(features, is_member)
    assert fitted.auc().low > 0.6
    one, other = blind.match(fitted.scores, is_member)
    assert len(set(one) | set(other)) == 2 * len(one) > 400
    assert is_member[one].all() and not is_member[other].any()
    assert abs(features[one, 0].mean() - features[other, 0].mean()) < 0.1
    rows = np.concatenate([one, other])
    again = blind.fit_blind(features[rows], is_member[rows]).auc()
    assert again.low <= 0.5 <= again.high


def test_too_few_records_are_refused():
    with pytest.raises(ValueError, match="20 members"):
        blind.fit_blind(np.zeros((30, 3)), np.arange(30) < 5)
