"""ROC measures against scikit-learn, values worked out by hand, and random weights."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score, roc_curve

from securitynet.metrics import membership, roc


def draw(seed, m=200, n=300, shift=0.5, decimals=None):
    generator = np.random.default_rng(seed)
    members, non_members = generator.normal(shift, 1, m), generator.normal(0, 1, n)
    return (members, non_members) if decimals is None else (members.round(decimals), non_members.round(decimals))


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_auc_and_curve_agree_with_scikit_learn(decimals):
    members, non_members = draw(0, decimals=decimals)
    truth = np.r_[np.ones(len(members)), np.zeros(len(non_members))]
    scores = np.r_[members, non_members]
    assert roc.measure_auc(members, non_members).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    curve = roc.compute_curve(members, non_members)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)


def test_auc_by_hand_with_a_tie():
    # Pairs: (2 vs 1) won, (2 vs 2) tied, (3 vs 1) won, (3 vs 2) won: 3.5 of 4.
    assert roc.measure_auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])).value == 3.5 / 4


def test_a_lower_score_for_members_gives_an_auc_below_one_half():
    members, non_members = draw(2)
    assert roc.measure_auc(-members, -non_members).value < 0.5 < roc.measure_auc(members, non_members).value


def test_tpr_interval_is_not_empty_where_nothing_is_found():
    measured = roc.measure_tpr_at_fpr(np.zeros(100), np.ones(100), 0.1)
    assert measured.value == 0 and measured.high > 0.03


def test_balanced_accuracy_by_hand():
    measured = roc.measure_balanced_accuracy(np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2]), 2.0)
    assert measured.value == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_best_threshold_separates_what_can_be_separated():
    assert roc.find_best_threshold(np.array([3.0, 4]), np.array([1.0, 2])) == 2.5
    members, non_members = draw(7)
    best = roc.find_best_threshold(members, non_members)
    value = (members >= best).mean() + (non_members < best).mean()
    for other in np.linspace(-3, 3, 200):
        assert value >= (members >= other).mean() + (non_members < other).mean() - 1e-12


def test_all_equal_scores_are_chance():
    same = np.zeros(40)
    measured = membership.measure_membership(
        np.zeros(80),
        np.arange(80) < 40,
        threshold=roc.find_best_threshold(same, same),
        held_out=np.ones(80, bool),
        fprs=(0.1,),
    )
    auc, balanced, advantage, tpr, epsilon = measured
    assert auc.value == balanced.value == 0.5 and advantage.value == tpr.value == epsilon.value == 0


@pytest.mark.parametrize("members, non_members", [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_missing_and_nan_scores_are_refused(members, non_members):
    with pytest.raises(ValueError):
        roc.measure_auc(np.array(members), np.array(non_members))


def test_threshold_is_judged_on_held_out_records_only():
    scores = np.array([9.0, 9, 0, 0, 1, 1, 5, 5])
    is_member = np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)
    held_out = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
    measures = {
        m.name: m
        for m in membership.measure_membership(scores, is_member, threshold=4.0, held_out=held_out, fprs=(0.5,))
    }
    assert measures["balanced-accuracy"].value == 0.0 and measures["balanced-accuracy"].n == 4
    assert measures["auc"].n == 8


def test_auc_interval_has_the_quantiles_of_random_weights():
    members, non_members = draw(1, 30, 40, decimals=1)
    generator = np.random.default_rng(0)
    w, v = generator.dirichlet(np.ones(31), 20_000), generator.dirichlet(np.ones(41), 20_000)
    kernel = (members[:, None] > non_members) + 0.5 * (members[:, None] == non_members)
    worst, best = np.zeros((31, 41)), np.ones((31, 41))
    worst[:30, :40] = best[:30, :40] = kernel
    expected = [np.quantile(((w @ k) * v).sum(axis=1), q) for k, q in ((worst, 0.025), (best, 0.975))]
    measured = roc.measure_auc(members, non_members)
    assert [measured.low, measured.high] == pytest.approx(expected, abs=0.005)


def test_auc_interval_is_delongs_with_many_records():
    members, non_members = draw(1, 3000, 2000)
    kernel = members[:, None] > non_members
    variance = kernel.mean(1).var(ddof=1) / 3000 + kernel.mean(0).var(ddof=1) / 2000
    measured = roc.measure_auc(members, non_members)
    assert (measured.high - measured.low) / 2 == pytest.approx(1.959964 * variance**0.5, rel=0.04)


@pytest.mark.parametrize("scores", [(np.ones(20), np.zeros(30)), (np.ones(20), np.ones(30))])
def test_separated_and_constant_scores_keep_an_honest_interval(scores):
    measured = roc.measure_auc(*scores)
    assert measured.high - measured.low > 0.1


def test_tpr_at_fpr_by_hand():
    non_members = np.arange(99.0)  # an FPR of 0.1 over 100 records to come: the tenth highest, 89, is the threshold
    members = np.array([88.5, 89.0, 89.5, 95.5, 200.0])
    assert roc.measure_tpr_at_fpr(members, non_members, 0.1).value == 3 / 5


def test_tpr_at_fpr_takes_a_block_of_ties_whole_or_not_at_all():
    members, non_members = np.ones(10), np.r_[np.ones(80), np.zeros(20)]
    assert roc.measure_tpr_at_fpr(members, non_members, 0.1).value == 0
    assert roc.measure_tpr_at_fpr(members, non_members, 0.9).value == 1


def test_tpr_below_the_resolution_has_no_value():
    measured = roc.measure_tpr_at_fpr(*draw(4, 50, 367), 0.01)
    assert measured.value is None and measured.low is None and "takes 368 non-members" in measured.note
    assert roc.measure_tpr_at_fpr(*draw(4, 50, 368), 0.01).value is not None


def test_tpr_interval_is_that_of_drawn_thresholds_and_rates():
    members, non_members = draw(5, 300, 200, shift=1.0)
    generator = np.random.default_rng(0)
    descending = np.sort(non_members)[::-1]
    counts = generator.binomial(200, 0.1, 40_000)
    hits_low = (members[:, None] > descending[counts - 1]).sum(axis=0)
    hits_high = (members[:, None] > descending[counts]).sum(axis=0)
    low = np.quantile(generator.beta(hits_low, 301 - hits_low), 0.025)
    high = np.quantile(generator.beta(hits_high + 1, 300 - hits_high), 0.975)
    measured = roc.measure_tpr_at_fpr(members, non_members, 0.1)
    assert (measured.low, measured.high) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("count", [100, 400, 1000])
def test_shares_are_exact_where_a_bound_is_a_multiple_of_one_record(count):
    scores = np.arange(float(count))
    for reached in range(1, count // 10):
        assert roc.count_share(scores, np.array([count - reached]))[0] == reached / count
    assert roc.count_share(scores, np.array([-1.0, count + 1.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("n", "fpr"), [(47, 0.1), (1000, 0.01), (10_000, 0.001), (60_000, 0.5)])
def test_numbers_above_a_threshold_are_binomial(n, fpr):
    fewest, most, shares = roc._count_exceedances(n, fpr)
    assert fewest[0] == scipy.stats.binom.ppf(1e-6, n, fpr) and most[-1] == scipy.stats.binom.isf(1e-6, n, fpr)
    assert (fewest[1:] == most[:-1] + 1).all()
    between = scipy.stats.binom.cdf(most, n, fpr) - scipy.stats.binom.cdf(fewest - 1, n, fpr)
    np.testing.assert_allclose(shares, between, rtol=1e-7, atol=1e-12)
