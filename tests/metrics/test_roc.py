"""ROC measures against scikit-learn, values worked out by hand, and brute-force bootstraps."""

import numpy as np
import pytest
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
    assert roc.auc(members, non_members).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    curve = roc.curve(members, non_members)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)


def test_auc_by_hand_with_a_tie():
    # Pairs: (2 vs 1) won, (2 vs 2) tied, (3 vs 1) won, (3 vs 2) won: 3.5 of 4.
    assert roc.auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])).value == 3.5 / 4


def test_delong_variance_is_that_of_its_definition():
    members, non_members = draw(1, 60, 80, decimals=1)
    kernel = (members[:, None] > non_members).astype(float) + 0.5 * (members[:, None] == non_members)
    variance = kernel.mean(1).var(ddof=1) / 60 + kernel.mean(0).var(ddof=1) / 80
    measured = roc.auc(members, non_members)
    assert measured.method == "DeLong"
    assert (measured.high - measured.low) / 2 == pytest.approx(1.959964 * variance**0.5, rel=1e-5)


def test_auc_interval_covers_the_truth_as_often_as_it_says():
    # Two equal normals: the truth is one half.
    hits = 0
    for seed in range(400):
        measured = roc.auc(*draw(seed, 50, 50, shift=0.0))
        hits += measured.low <= 0.5 <= measured.high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_lower_score_for_members_gives_an_auc_below_one_half():
    members, non_members = draw(2)
    assert roc.auc(-members, -non_members).value < 0.5 < roc.auc(members, non_members).value


def test_perfect_separation_keeps_an_honest_interval():
    measured = roc.auc(np.ones(20), np.zeros(30))
    assert measured.value == measured.high == 1.0
    assert measured.low == pytest.approx(0.025 ** (1 / 20))


def test_tpr_at_fpr_by_hand():
    non_members = np.arange(10.0)  # FPR 0.2 allows two: the third highest is 7, so "above 7" counts
    members = np.array([6.5, 7.0, 7.5, 8.5, 9.5])
    assert roc.tpr_at_fpr(members, non_members, 0.2).value == 3 / 5
    assert roc.tpr_at_fpr(members, non_members, 0.1).value == 2 / 5


def test_tpr_at_fpr_takes_a_block_of_ties_whole_or_not_at_all():
    # The correctness attack: 8 of 10 non-members score 1. No threshold has an FPR of 0.1 but "nobody".
    members, non_members = np.ones(10), np.r_[np.ones(8), np.zeros(2)]
    assert roc.tpr_at_fpr(members, non_members, 0.1).value == 0
    assert roc.tpr_at_fpr(members, non_members, 0.8).value == 1


@pytest.mark.parametrize("fpr", [0.3, 0.07, 0.02])
@pytest.mark.parametrize("decimals", [None, 1])
def test_tpr_at_fpr_agrees_with_the_curve(fpr, decimals):
    members, non_members = draw(3, 150, 100, decimals=decimals)
    curve = roc.curve(members, non_members)
    assert roc.tpr_at_fpr(members, non_members, fpr).value == pytest.approx(curve.tpr[curve.fpr <= fpr + 1e-9].max())


def test_tpr_below_the_resolution_has_no_value():
    measured = roc.tpr_at_fpr(*draw(4, 50, 99), 0.01)
    assert measured.value is None and measured.low is None
    assert "1/99" in measured.note
    assert roc.tpr_at_fpr(*draw(4, 50, 100), 0.01).value is not None


def test_tpr_bootstrap_is_that_of_naive_resampling():
    members, non_members = draw(5, 300, 200, shift=1.0)
    generator = np.random.default_rng(0)
    naive = []
    for _ in range(4000):
        m, n = generator.choice(members, 300), np.sort(generator.choice(non_members, 200))[::-1]
        naive.append((m > n[20]).mean())
    low, high = np.quantile(naive, [0.025, 0.975])
    measured = roc.tpr_at_fpr(members, non_members, 0.1)
    assert measured.low == pytest.approx(low, abs=0.02)
    assert measured.high == pytest.approx(high, abs=0.02)


def test_tpr_interval_is_not_empty_where_nothing_is_found():
    measured = roc.tpr_at_fpr(np.zeros(100), np.ones(100), 0.1)
    assert measured.value == 0 and measured.high > 0.03


def test_balanced_accuracy_by_hand():
    measured = roc.balanced_accuracy(np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2]), 2.0)
    assert measured.value == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_balanced_accuracy_bootstrap_is_that_of_naive_resampling():
    members, non_members = draw(6, 120, 90, shift=1.0)
    generator = np.random.default_rng(1)
    naive = [
        ((generator.choice(members, 120) >= 0.5).mean() + (generator.choice(non_members, 90) < 0.5).mean()) / 2
        for _ in range(4000)
    ]
    measured = roc.balanced_accuracy(members, non_members, 0.5)
    assert [measured.low, measured.high] == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.02)


def test_best_threshold_separates_what_can_be_separated():
    assert roc.best_threshold(np.array([3.0, 4]), np.array([1.0, 2])) == 2.5
    members, non_members = draw(7)
    best = roc.best_threshold(members, non_members)
    value = (members >= best).mean() + (non_members < best).mean()
    for other in np.linspace(-3, 3, 200):
        assert value >= (members >= other).mean() + (non_members < other).mean() - 1e-12


def test_all_equal_scores_are_chance():
    same = np.zeros(20)
    measured = membership.measure(
        np.zeros(40),
        np.arange(40) < 20,
        threshold=roc.best_threshold(same, same),
        held_out=np.ones(40, bool),
        fprs=(0.1,),
    )
    auc, balanced, advantage, tpr, epsilon = measured
    assert auc.value == balanced.value == 0.5 and advantage.value == tpr.value == epsilon.value == 0


@pytest.mark.parametrize("members, non_members", [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_missing_and_nan_scores_are_refused(members, non_members):
    with pytest.raises(ValueError):
        roc.auc(np.array(members), np.array(non_members))


def test_threshold_is_judged_on_held_out_records_only():
    scores = np.array([9.0, 9, 0, 0, 1, 1, 5, 5])
    is_member = np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)
    held_out = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
    measures = {m.name: m for m in membership.measure(scores, is_member, threshold=4.0, held_out=held_out, fprs=(0.5,))}
    assert measures["balanced-accuracy"].value == 0.0 and measures["balanced-accuracy"].n == 4
    assert measures["auc"].n == 8
