"""Property inference: at chance where outputs show nothing, and a share that is estimated where they do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from securitynet.attacks.membership.property_inference import (
    PropertyInference,
    PropertyScores,
    fit_classifiers,
    score_pairs,
)
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData


def simulate(random, effect, share, pairs=8, features=6):
    """Scores of models whose features move in one direction with the share of a property; low 0.1, high 0.3."""
    direction = np.eye(features)[0]

    def draw(value, count):
        return random.standard_normal((count, features)) + effect * (value - 0.2) * direction

    low, high, target = draw(0.1, pairs), draw(0.3, pairs), draw(share, 1)[0]
    *scores, permuted = score_pairs(low, high, target)
    return PropertyScores(*scores, np.array([0.1, 0.3]), share, permuted)


def test_where_nothing_shows_pairs_are_ordered_by_a_coin():
    random = np.random.default_rng(2)
    runs = [simulate(random, 0.0, 0.2).measure() for _ in range(100)]
    assert np.mean([run["pair-accuracy"].value for run in runs]) == pytest.approx(0.5, abs=0.06)
    # Without the exchanges, it lay above chance in 4 to 6% of 400 runs, and below in as many.
    assert sum(run["pair-accuracy"].low > 0.5 for run in runs) <= 4
    assert sum(run["pair-accuracy"].high < 0.5 for run in runs) <= 4
    assert all(run["share"].value is None for run in runs if run["pair-accuracy"].low <= 0.5)


@pytest.mark.parametrize("features", [3, 40])
def test_classifiers_equal_those_of_an_independent_implementation(features):
    random = np.random.default_rng(1)
    low, high = random.standard_normal((2, 3, 5, features)) * random.uniform(0.1, 9.0, features)
    directions, middles = fit_classifiers(low, high)
    for one, other, direction, middle in zip(low, high, directions, middles, strict=True):
        means = one.mean(axis=0), other.mean(axis=0)
        centred = np.concatenate([one - means[0], other - means[1]])
        deviation = centred.std(axis=0)
        correlation, _ = ledoit_wolf(centred / deviation, assume_centered=True)
        covariance = correlation * np.outer(deviation, deviation)
        assert direction == pytest.approx(np.linalg.solve(covariance, means[1] - means[0]), rel=1e-5)
        assert middle == pytest.approx((means[0] + means[1]) / 2)


def test_where_it_shows_the_share_is_estimated():
    random = np.random.default_rng(3)
    runs = [simulate(random, 40.0, 0.15).measure() for _ in range(10)]
    assert all(run["pair-accuracy"].low > 0.5 for run in runs)
    assert sum(run["share"].low <= 0.15 <= run["share"].high for run in runs) >= 8
    assert np.mean([run["share"].value for run in runs]) == pytest.approx(0.15, abs=0.03)


def test_scores_survive_storage():
    scores = simulate(np.random.default_rng(0), 40.0, 0.15)
    assert PropertyScores.from_arrays(scores.arrays()).measure() == scores.measure()


def test_what_is_impossible_is_said(overfitted):
    target, splits, dataset = overfitted
    with pytest.raises(SplitError, match="no shadow data"):
        run(PropertyInference(), target, splits, dataset)
    with pytest.raises(ConfigurationError, match="below the high one"):
        PropertyInference(low=0.4, high=0.2)


def run(attack, target, splits, dataset, cache=None):
    return attack(target, TrialData(dataset, splits), Context(cache=cache), attack.threat_models[0])


@pytest.mark.slow
def test_the_share_of_a_class_shows_in_the_outputs_of_digits(tmp_path):
    from securitynet import testing
    from securitynet.datasets import load
    from securitynet.datasets.splits import make

    digits = load("digits")
    recipe = {"epochs": 10, "optimizer": "adam", "learning_rate": 5e-3, "batch_size": 16, "schedule": "constant"}
    attack = PropertyInference(pairs=8, low=0.03, high=0.4, training={"architecture": "simple-cnn", "recipe": recipe})
    output = run(attack, testing.make_overfitted_case().target, make("four-way", digits), digits, tmp_path)
    assert output.measure()["pair-accuracy"].low > 0.5
