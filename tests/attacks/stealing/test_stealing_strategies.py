"""How active attacks choose: against straightforward implementations and cases worked out by hand."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from scipy import stats

from securitynet.attacks.stealing.k_center import choose_k_centers
from securitynet.attacks.stealing.knockoff import GradientBandit, RewardHistory, as_posteriors
from securitynet.attacks.stealing.uncertainty import UncertaintyStealing, measure_uncertainty
from stealing_cases import FAST, context


def test_uncertainty_measures():
    rows = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    np.testing.assert_allclose(measure_uncertainty(rows, "entropy"), stats.entropy(rows, axis=1), atol=1e-12)
    ordered = np.sort(rows, axis=1)
    np.testing.assert_allclose(measure_uncertainty(rows, "margin"), -(ordered[:, -1] - ordered[:, -2]))
    np.testing.assert_allclose(measure_uncertainty(rows, "confidence"), -rows.max(axis=1))
    assert measure_uncertainty(np.array([[1.0, 0.0]]), "entropy")[0] == 0


@pytest.mark.parametrize("measure", ["entropy", "margin", "confidence"])
def test_the_least_sure_come_first(measure, digit_target, all_data):
    """With a selector of no training to speak of, the second round is what its doubts say."""
    chosen = []

    class Recorder(UncertaintyStealing):
        def choose(self, known, selector, number):
            rest = known.rest()
            doubt = measure_uncertainty(selector.posteriors(known.pool.dataset.batch(rest)).numpy(), self.measure)
            super().choose(known, selector, number)
            picked = known.records[-1]
            others = np.setdiff1d(rest, picked)
            order = {int(record): value for record, value in zip(rest, doubt, strict=True)}
            assert min(order[int(r)] for r in picked) >= max(order[int(r)] for r in others) - 1e-6
            chosen.append(len(picked))

    attack = Recorder(**FAST, budgets=100, first=30, selection_epochs=2, measure=measure)
    attack(digit_target, all_data, context(), attack.threat_models[0])
    assert chosen == [30, 40], "rounds double what is known, up to the budget"


def test_k_center_is_farthest_point_sampling():
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.randn(80, 6, generator=generator), torch.randn(7, 6, generator=generator)
    found = choose_k_centers(points, centres, 20)
    covered = [*centres.double().numpy()]
    for place in found:
        distances = [min(np.linalg.norm(p - c) for c in covered) for p in points.double().numpy()]
        assert distances[place] == pytest.approx(max(distances))
        covered.append(points[place].double().numpy())
    np.testing.assert_array_equal(choose_k_centers(points, centres, 5), found[:5])
    assert len(set(found.tolist())) == 20


def test_k_center_takes_each_point_once_even_where_points_coincide():
    points = torch.zeros(5, 2)
    assert sorted(choose_k_centers(points, torch.zeros(1, 2), 5).tolist()) == [0, 1, 2, 3, 4]


def test_the_bandit_follows_equation_4():
    bandit = GradientBandit(3)
    np.testing.assert_allclose(bandit.policy(), 1 / 3)
    bandit.update(1, reward=2.0, baseline=1.0)  # step size 1, as the action was taken once
    np.testing.assert_allclose(bandit.preferences, [-1 / 3, 1 - 1 / 3, -1 / 3])
    before, policy = bandit.preferences.copy(), bandit.policy()
    bandit.update(1, reward=0.5, baseline=1.5)  # step size 1/2, reward below the baseline
    expected = before - 0.5 * (np.array([0, 1, 0]) - policy) * 1.0
    np.testing.assert_allclose(bandit.preferences, expected)


def test_the_bandit_draws_by_its_policy_and_only_what_is_left():
    bandit = GradientBandit(3)
    bandit.preferences = np.log([0.6, 0.3, 0.1])
    draws = torch.Generator().manual_seed(0)
    left = {0: deque([1]), 1: deque([1]), 2: deque([1])}
    counts = np.bincount([bandit.draw(left, draws) for _ in range(4000)], minlength=3)
    assert stats.chisquare(counts, np.array([0.6, 0.3, 0.1]) * 4000).pvalue > 0.001
    left[0].clear()
    assert {bandit.draw(left, draws) for _ in range(200)} == {1, 2}
    bandit.preferences = np.array([0.0, -1000.0, -1000.0])  # the policy gives what is left no chance at all
    assert {bandit.draw(left, draws) for _ in range(50)} <= {1, 2}


def test_rewards():
    certain = RewardHistory(("certainty",))
    assert certain.reward(np.array([0.6, 0.3, 0.1]), np.zeros(3)) == (0.5, 0.5)  # nothing to compare with
    assert certain.reward(np.array([0.9, 0.1, 0.0]), np.zeros(3)) == (1.0, 0.5)
    assert certain.reward(np.array([0.4, 0.4, 0.2]), np.zeros(3)) == (0.0, 0.75)
    diverse = RewardHistory(("diversity",))
    diverse.note(np.array([1.0, 0.0]))
    assert diverse._raw("diversity", np.array([1.0, 0.0]), np.zeros(2)) == 0.0
    assert diverse._raw("diversity", np.array([0.2, 0.8]), np.zeros(2)) == pytest.approx(0.8)
    surprise = RewardHistory(("loss",))
    logits = np.array([2.0, 0.0, -1.0])
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits[None]), torch.tensor([[0.1, 0.2, 0.7]])).item()
    assert surprise._raw("loss", np.array([0.1, 0.2, 0.7]), logits) == pytest.approx(expected)


def test_labels_as_posteriors():
    np.testing.assert_array_equal(as_posteriors(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


def test_the_policy_learns_which_actions_are_worth_taking():
    bandit, history = GradientBandit(10), RewardHistory(("certainty",))
    left = {label: deque(range(1000)) for label in range(10)}
    draws, taken = torch.Generator().manual_seed(1), []
    for _ in range(200):
        action = bandit.draw(left, draws)
        answer = np.array([0.98, 0.01, 0.01]) if action == 4 else np.array([0.4, 0.35, 0.25])
        bandit.update(action, *history.reward(answer, np.zeros(3)))
        taken.append(action)
    assert np.bincount(taken[100:], minlength=10).argmax() == 4
    assert bandit.policy().argmax() == 4
