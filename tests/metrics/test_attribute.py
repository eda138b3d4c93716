"""Measures of attribute inference against scikit-learn, values by hand, plain bootstraps, and cases without signal."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from securitynet.metrics import attribute


def data(n=400, values=3, classes=4, strength=0.5, seed=0):
    generator = np.random.default_rng(seed)
    labels, truth = generator.integers(0, classes, n), generator.integers(0, values, n)
    predicted = np.where(generator.random(n) < strength, truth, generator.integers(0, values, n))
    return truth, predicted, labels


def by_name(*arguments, **settings):
    return {m.name: m for m in attribute.measure_attribute(*arguments, **settings)}


def macro_f1(truth, predicted, labels):
    """Macro-F1 and that of the answers dealt out anew within each class."""
    measured = by_name(truth, predicted, np.zeros_like(truth), labels)
    return measured["macro-f1"].value, measured["baseline-macro-f1"].value


def expected_macro_f1(truth, predicted, labels):
    """Macro-F1 of the expected counts, where predictions are dealt out anew among the records of each class."""
    scores = []
    for value in np.unique(truth):
        hits = sum(
            (truth[labels == label] == value).sum() * (predicted[labels == label] == value).mean()
            for label in np.unique(labels)
        )
        scores.append(2 * hits / ((truth == value).sum() + (predicted == value).sum()))
    return np.mean(scores)


def test_macro_f1_is_scikit_learns():
    for seed in range(5):
        truth, predicted, labels = data(seed=seed)
        assert macro_f1(truth, predicted, labels)[0] == pytest.approx(f1_score(truth, predicted, average="macro"))
    # A value that is only said counts as a miss of others, and not as a class of its own.
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 7, 1, 1])
    expected = f1_score(truth, predicted, labels=[0, 1], average="macro")
    assert macro_f1(truth, predicted, np.zeros_like(truth))[0] == pytest.approx(expected)


def test_dealing_answers_out_is_the_mean_over_permutations():
    truth, predicted, labels = data(300)
    generator = np.random.default_rng(5)
    scores = []
    for _ in range(400):
        dealt = predicted.copy()
        for label in np.unique(labels):
            dealt[labels == label] = generator.permutation(predicted[labels == label])
        scores.append(f1_score(truth, dealt, average="macro"))
    assert macro_f1(truth, predicted, labels)[1] == pytest.approx(np.mean(scores), abs=0.005)


def test_the_bootstrap_is_that_of_records():
    truth, predicted, labels = data(250, strength=0.3)
    measured = by_name(truth, predicted, np.zeros_like(truth), labels)
    generator = np.random.default_rng(3)
    plain, gains = [], []
    for _ in range(300):
        chosen = generator.integers(0, len(truth), len(truth))
        plain.append(f1_score(truth[chosen], predicted[chosen], average="macro"))
        gains.append(plain[-1] - expected_macro_f1(truth[chosen], predicted[chosen], labels[chosen]))
    for name, samples in (("macro-f1", plain), ("macro-f1-gain", gains)):
        low, high = np.quantile(samples, [0.025, 0.975])
        assert (measured[name].low, measured[name].high) == pytest.approx((low, high), abs=0.016)


def test_values_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1, 1, 0])
    measured = by_name(truth, predicted, np.ones_like(truth), np.zeros_like(truth))
    assert measured["accuracy"].value == 6 / 8
    assert measured["baseline-accuracy"].value == 5 / 8
    assert measured["gain"].value == pytest.approx(1 / 8)
    assert measured["macro-f1"].value == pytest.approx((2 * 2 / (3 + 3) + 2 * 4 / (5 + 5)) / 2)
    # Dealt out: 3·3/8 hits of the first value and 5·5/8 of the second.
    assert measured["baseline-macro-f1"].value == pytest.approx((2 * 9 / 8 / 6 + 2 * 25 / 8 / 10) / 2)
    assert {m.direction.value for m in measured.values()} == {"lower"}


def test_guessing_gains_nothing_whatever_the_frequencies():
    """Majority answers have a low macro-F1, so compared with them even a guess would seem to know something."""
    outside = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 5, 300)
        truth = (generator.random(300) < 0.15 + 0.1 * (labels % 2)).astype(np.int64)
        guess = (generator.random(300) < 0.4 * (labels > 1)).astype(np.int64)
        measured = by_name(truth, guess, np.zeros_like(truth), labels)["macro-f1-gain"]
        outside += not measured.low <= 0 <= measured.high
    assert outside <= 7  # 3 expected


@pytest.mark.parametrize("constant", [True, False])
def test_no_spread_leaves_an_interval(constant):
    truth = np.arange(60) % 2
    said = np.zeros_like(truth) if constant else truth
    measured = by_name(truth, said, said, np.zeros_like(truth))
    for name in ("macro-f1", "gain", *(["macro-f1-gain"] if constant else [])):
        assert measured[name].high > measured[name].low
    assert measured["gain"].value == 0 and measured["gain"].low < 0 < measured["gain"].high
    if constant:
        assert measured["macro-f1-gain"].value == 0 and measured["macro-f1-gain"].low < 0


def test_many_values_and_classes_take_no_grid():
    truth, predicted, labels = data(2000, values=200, classes=500)
    measured = by_name(truth, predicted, np.zeros_like(truth), labels)
    assert measured["macro-f1"].low < measured["macro-f1"].value < measured["macro-f1"].high


def test_wrong_lengths_are_errors():
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    for arguments in ((one, one, one, two), (one[:0],) * 4):
        with pytest.raises(ValueError, match="same records"):
            attribute.measure_attribute(*arguments)


def test_the_baseline_is_the_majority_of_the_class_where_that_is_clear():
    known = np.array([1, 1, 1, 1, 0] + [0, 0, 0, 0, 1] + [1, 0] + [0] * 6)
    labels = np.array([0] * 5 + [1] * 5 + [2] * 2 + [3] * 6)
    said = attribute.label_majority(known, labels, np.array([0, 1, 2, 3, 9]))
    # Class 2 is tied and class 9 unknown: the most frequent of all. Class 0 says 1, also without any one record.
    np.testing.assert_array_equal(said, [1, 0, 0, 0, 0])


def test_the_baseline_ignores_classes_that_say_nothing():
    """Where the attribute is random, the majorities of classes are chance and would make a poor baseline."""
    worse = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        known, labels = (generator.random(200) < 0.42).astype(np.int64), generator.integers(0, 20, 200)
        worse += (attribute.label_majority(known, labels, np.arange(20)) != 0).any()
    assert worse <= 12
    # Where classes do say something, they are listened to.
    labels = np.arange(400) % 4
    known = (labels % 2) ^ (np.random.default_rng(0).random(400) < 0.2)
    np.testing.assert_array_equal(attribute.label_majority(known, labels, np.arange(4)), [0, 1, 0, 1])


def test_the_baseline_learns_without_the_judged_records():
    known, labels = np.array([2, 2, 2]), np.array([0, 0, 0])
    np.testing.assert_array_equal(attribute.label_majority(known, labels, np.array([5, 0])), [2, 2])
