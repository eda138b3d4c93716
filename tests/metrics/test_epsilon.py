"""The bound on epsilon: by hand, valid as often as it says on a mechanism whose epsilon is known, and not vacuous."""

import math

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import epsilon, membership


def test_bound_by_hand():
    # All of 100 members and none of 100 non-members: limits at 2.5% each solve p^100 = 0.025 and (1 − p)^100 = 0.025.
    low = 0.025 ** (1 / 100)
    assert float(epsilon.bound_epsilon(100, 100, 0, 100, delta=0.0)) == pytest.approx(math.log(low / (1 - low)))
    assert float(epsilon.bound_epsilon(100, 100, 0, 100, delta=0.1)) == pytest.approx(math.log((low - 0.1) / (1 - low)))


def test_bound_uses_the_other_inequality_where_it_says_more():
    # 60 of 100 members called, all 100 non-members too: only "not called" is telling.
    hits, false_alarms = stats.beta.ppf(0.025, 100, 1), stats.beta.ppf(0.975, 61, 40)
    expected = math.log((1 - false_alarms) / (1 - hits))
    assert float(epsilon.bound_epsilon(100, 100, 60, 100, delta=0.0)) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(0, 10, 0, 10), (10, 10, 10, 10), (5, 10, 5, 10), (2, 10, 8, 10)])
def test_bound_is_never_negative_nor_nan(counts):
    assert float(epsilon.bound_epsilon(*counts)) == 0.0


def test_holds_as_often_as_it_says_and_comes_near_the_truth():
    # Randomised response of one bit: TPR and 1 − FPR are e^ε / (1 + e^ε), so epsilon is known.
    true, found = 1.0, []
    p = math.e**true / (1 + math.e**true)
    for seed in range(300):
        generator = np.random.default_rng(seed)
        is_member = np.arange(800) < 400
        scores = np.where(generator.random(800) < p, is_member, ~is_member).astype(float)
        tuning = np.arange(800) % 2 == 0
        found.append(epsilon.measure_lower_bound(scores, is_member, tuning=tuning, delta=0.0).value)
    assert np.mean(np.array(found) <= true) >= 0.95
    assert np.median(found) > 0.5


def test_no_bound_where_there_is_nothing_to_find_although_many_thresholds_are_tried():
    above = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        above += epsilon.measure_lower_bound(generator.normal(size=400), np.arange(400) < 200, seed=seed).value > 0
    assert above / 300 <= 0.05


def test_threshold_is_judged_on_other_records_than_it_was_chosen_on():
    # The tuning part separates perfectly, the rest not at all.
    is_member = np.arange(200) % 2 == 0
    tuning = np.arange(200) < 100
    scores = np.where(tuning & is_member, 1.0, 0.0)
    assert epsilon.measure_lower_bound(scores, is_member, tuning=tuning).value == 0
    reversed_ = epsilon.measure_lower_bound(scores, is_member, tuning=~tuning)
    assert reversed_.n == 100


def test_measurement_names_delta_and_confidence():
    measured = epsilon.measure_lower_bound(np.arange(400.0), np.arange(400) >= 200, delta=1e-4, level=0.9)
    assert measured.name == "epsilon-lower-bound@delta=0.0001" and measured.level == 0.9
    assert measured.low == measured.value == measured.high > 2
    assert "random half" in measured.method


def test_too_few_records_are_not_resolvable():
    measured = epsilon.measure_lower_bound(np.array([1.0, 0.0]), np.array([True, False]))
    assert measured.value is None and "two members" in measured.note


def test_tuned_threshold_is_the_best_of_all_by_brute_force():
    generator = np.random.default_rng(3)
    members, non_members = generator.normal(3, 1, 60).round(1), generator.normal(0, 1, 60).round(1)
    chosen = epsilon.find_best_epsilon_threshold(members, non_members)

    strict = 1 - 0.05 / len(np.unique(np.r_[members, non_members]))

    def at(threshold):
        counts = (members >= threshold).sum(), 60, (non_members >= threshold).sum(), 60
        return float(epsilon.bound_epsilon(*counts, level=strict))

    assert at(chosen) == max(at(t) for t in np.linspace(-5, 8, 1301)) > 0


def test_many_records_are_thinned_without_losing_the_ends():
    top = epsilon.find_best_epsilon_threshold(np.arange(19_900.0, 20_000), np.arange(19_900.0))
    assert top == 19_900.0


def test_advantage_by_hand():
    # 3 of 4 members and 1 of 5 non-members are called: 0.75 − 0.2.
    measured = membership.measure_advantage(np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 0, 0, 0]), 0.5)
    assert measured.value == pytest.approx(0.55)
    assert measured.low < 0.55 < measured.high <= 1


def test_thresholds_by_record_decide_like_shifted_scores():
    generator = np.random.default_rng(0)
    scores, is_member = generator.normal(size=200), np.arange(200) < 100
    thresholds = generator.normal(size=200)
    held_out = generator.random(200) < 0.6
    measures = {
        m.name: m
        for m in membership.measure_membership(scores, is_member, threshold=thresholds, held_out=held_out, fprs=(0.1,))
    }
    called = scores >= thresholds
    tpr, fpr = called[is_member & held_out].mean(), called[~is_member & held_out].mean()
    assert measures["balanced-accuracy"].value == pytest.approx((tpr + 1 - fpr) / 2)
    assert measures["advantage"].value == pytest.approx(tpr - fpr)
