"""The verdict on a suspect: partial correlations by another computation, false alarms and power by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics.ownership import correlate_with_owner, count_fewest_references, judge_suspect

CLASSES = 5


def simulate(draws, *, models=20, images=600, accuracies=None):
    """Predictions of a population of independent models for images of unequal difficulty, and the truth."""
    truth = draws.integers(CLASSES, size=images)
    lure, ease = (truth + draws.integers(1, CLASSES, size=images)) % CLASSES, draws.beta(2, 1, size=images)
    skill = draws.uniform(0.8, 1.2, size=models) if accuracies is None else np.asarray(accuracies)
    right = draws.random((models, images)) < np.clip(skill[:, None] * ease, 0, 1)
    lured = draws.random((models, images)) < 0.6
    wrong = np.where(lured, lure, draws.integers(CLASSES, size=(models, images)))
    return np.where(right, truth, wrong), truth


def copy(draws, owner, other, share):
    """A model that predicts like the owner's for a share of the images, and like another one for the rest."""
    return np.where(draws.random(len(owner)) < share, owner, other)


def test_correlations_are_those_of_residuals():
    predicted, truth = simulate(np.random.default_rng(0), models=6, images=200)
    owner, others = predicted[0], predicted[1:]

    def indicate(labels):
        indicators = np.eye(CLASSES)[labels]
        return (indicators - indicators.mean(axis=0)).ravel()

    found = correlate_with_owner(owner, others, truth)
    for number, one in enumerate(others):
        rest = [indicate(other) for place, other in enumerate(others) if place != number]
        given = np.stack([indicate(truth), *rest], axis=1)
        left = [y - given @ np.linalg.lstsq(given, y, rcond=None)[0] for y in (indicate(owner), indicate(one))]
        assert found[number] == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-6)


def test_what_the_others_explain_is_no_sign():
    predicted, truth = simulate(np.random.default_rng(1), models=6)
    owner, others = predicted[0], predicted[1:]
    assert correlate_with_owner(owner, np.stack([owner, *others]), truth)[0] == pytest.approx(1)
    assert not correlate_with_owner(owner, np.stack([truth, *others]), truth)[0]
    assert not correlate_with_owner(truth, others, truth).any()
    assert not correlate_with_owner(owner, np.stack([np.zeros_like(truth), *others]), truth)[0]
    twins = correlate_with_owner(owner, np.stack([others[0], *others]), truth)
    assert not twins[0] and not twins[1]


def test_ties_do_not_accuse():
    predicted, truth = simulate(np.random.default_rng(2), models=21)
    owner, others = predicted[0], list(predicted[1:])
    found = judge_suspect(truth, others[0], others[1:], truth)
    assert found.p_value == 1 and found.verdict == "no sign"
    found = judge_suspect(owner, owner, others, truth)
    assert found.verdict == "copy" and found.p_value == pytest.approx(1 / 21) and found.agreement.value == 1


def test_few_references_give_no_verdict():
    predicted, truth = simulate(np.random.default_rng(3), models=20)
    assert count_fewest_references() == 19
    found = judge_suspect(predicted[0], predicted[0], list(predicted[2:]), truth)
    assert len(found.references) == 18 and found.verdict == "undecided" and "19 or more" in found.describe()
    nothing = judge_suspect(predicted[0], predicted[0], [], truth)
    assert nothing.verdict == "undecided" and "says nothing" in nothing.describe()


def test_independent_suspects_are_rarely_accused_and_copies_mostly():
    draws = np.random.default_rng(4)
    accused = caught = 0
    for _ in range(150):
        predicted, truth = simulate(draws, models=22)
        owner, suspect, *references = predicted
        found = judge_suspect(owner, suspect, references, truth)
        accused += found.verdict == "copy"
        caught += judge_suspect(owner, copy(draws, owner, suspect, 0.3), references, truth).verdict == "copy"
    assert accused / 150 <= 0.1  # of 1 in 21, 95% of the time
    assert caught / 150 >= 0.9
    if found.verdict == "no sign":
        assert "does not clear it" in found.describe()


def test_accurate_models_do_not_copy_accurate_ones():
    draws = np.random.default_rng(5)
    for skill in (1.2, 1.7):
        predicted, truth = simulate(draws, models=21, accuracies=[skill] * 2 + [0.9] * 19)
        found = judge_suspect(predicted[0], predicted[1], list(predicted[2:]), truth)
        assert found.verdict == "undecided" and "about as accurate" in found.describe()
    accused = 0
    for _ in range(60):  # the owner's model is ordinary
        predicted, truth = simulate(draws, models=21, accuracies=[0.9, 1.7] + [0.9] * 19)
        accused += judge_suspect(predicted[0], predicted[1], list(predicted[2:]), truth).verdict == "copy"
    assert accused / 60 <= 0.13  # of 1 in 20, 95% of the time
