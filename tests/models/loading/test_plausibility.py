"""Accuracy at chance, far from the stated one, or right in another class order."""

import numpy as np
import pytest

from securitynet.models.loading.plausibility import check_accuracy, find_class_order

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def simulate(order=None, accuracy=0.8, count=400, classes=10, seed=0):
    """(predicted, labels) of a model that predicts order[label] with some accuracy, and else any class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    order = np.arange(classes) if order is None else np.asarray(order)
    hit = generator.random(count) < accuracy
    return np.where(hit, order[labels], generator.integers(0, classes, count)), labels


def failed(*arguments, **options):
    return {check.what: check for check in check_accuracy(*arguments, **options) if not check.agrees}


def test_a_good_model_passes():
    assert not failed(*simulate(), NAMES)
    assert not failed(*simulate(), NAMES, stated=0.82, model_names=NAMES)


def test_chance():
    assert failed(*simulate(accuracy=0.0), NAMES).keys() == {"chance"}
    assert "chance" not in failed(*simulate(accuracy=0.25, count=2000), NAMES)
    few = simulate(accuracy=0.6, count=32)
    assert not failed(*few, NAMES)
    # The commonest class always: 90% without knowing anything.
    labels = np.array([0] * 180 + [1] * 20)
    assert "chance" in failed(np.zeros(200, np.int64), labels, ("a", "b"))


def test_a_stated_accuracy():
    predicted, labels = simulate(accuracy=0.5, count=1000)
    found = failed(predicted, labels, NAMES, stated=0.92)
    assert found.keys() == {"accuracy"}
    assert "92.0% is stated" in found["accuracy"].note
    # A weak model that is as weak as it is said to be is no mistake.
    weak = simulate(accuracy=0.05, count=1000)
    accuracy = float((weak[0] == weak[1]).mean())
    assert not failed(*weak, NAMES, stated=accuracy)


@pytest.mark.parametrize("shift", [1, -1, 4])
def test_a_rotation(shift):
    order = (np.arange(10) + shift) % 10
    found = failed(*simulate(order, count=120), NAMES)
    assert "rotated" in found["class order"].note
    assert np.array_equal(find_class_order(*simulate(order, count=120), NAMES).order, order)


def test_two_classes_swapped():
    order = np.arange(10)
    order[[3, 5]] = [5, 3]
    found = failed(*simulate(order, accuracy=0.9), NAMES)
    assert found.keys() == {"class order"}  # accuracy is far above chance
    assert "cat and dog are swapped" in found["class order"].note


def test_any_permutation():
    order = np.random.default_rng(3).permutation(10)
    found = find_class_order(*simulate(order), NAMES)
    assert np.array_equal(found.order, order)
    assert found.accuracy == pytest.approx(0.82, abs=0.06)


def test_numbers_sorted_as_text():
    as_text = np.array(sorted(range(120), key=str))
    names = tuple(map(str, range(120)))
    found = find_class_order(*simulate(as_text, classes=120, count=500), names)
    assert "sorted as text" in found.words


def test_the_names_of_classes_tell():
    model_names = tuple(sorted(NAMES, reverse=True))
    order = np.array([model_names.index(name) for name in NAMES])
    found = find_class_order(*simulate(order, count=60), NAMES, [name.upper() for name in model_names])
    assert np.array_equal(found.order, order)


def test_names_are_the_same_in_another_unicode_form():
    model_names = ("dog", "e\u0301te\u0301", "cat")
    names = ("cat", "dog", "\u00e9t\u00e9")
    found = find_class_order(*simulate([2, 0, 1], classes=3, count=60), names, model_names)
    assert found.words.startswith("by the names of its classes")


def test_at_chance_names_in_another_order_are_said():
    """A weak model shows no order, but the names do."""
    predicted, labels = simulate(accuracy=0.0, count=400)
    swapped = (NAMES[1], NAMES[0], *NAMES[2:])
    found = failed(predicted, labels, NAMES, model_names=swapped)
    assert found.keys() == {"chance"}
    assert "automobile is 1 in the dataset and 0 in the model" in found["chance"].note


@pytest.mark.parametrize("classes", [2, 10, 50])
@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.4, 0.9])
def test_no_order_is_seen_where_there_is_none(classes, accuracy):
    names = tuple(map(str, range(classes)))
    seen = [
        find_class_order(*simulate(accuracy=accuracy, classes=classes, seed=seed), names) is not None
        for seed in range(30)
    ]
    assert sum(seen) == 0


def test_scores_of_which_the_lowest_is_meant():
    """Distances to the classes; that the farthest class is always the same one makes no other order of the classes."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 400)
    around = np.abs((np.arange(10) - labels[:, None] + 5) % 10 - 5) + generator.random((400, 10))
    centres = generator.normal(size=(10, 4))
    images = centres[labels] + 0.3 * generator.normal(size=(400, 4))
    scattered = np.square(images[:, None] - centres).sum(axis=2)
    for distances in (around, scattered):
        found = failed(distances.argmax(axis=1), labels, NAMES, lowest=distances.argmin(axis=1))
        assert found.keys() == {"sign", "chance"}
        right = float((distances.argmin(axis=1) == labels).mean())
        assert "return -scores" in found["sign"].note and f"lowest score is right for {right:.1%}" in found["sign"].note
        assert "the sign of its scores" in found["chance"].note and "--normalize" not in found["chance"].note


def test_the_lowest_score_of_a_good_model_says_nothing():
    predicted, labels = simulate()
    assert not failed(predicted, labels, NAMES, lowest=(labels + 1) % 10)
    predicted, labels = simulate(order=[1, 0], classes=2)
    found = failed(predicted, labels, ("a", "b"), lowest=1 - predicted)
    assert "sign" not in found and "the lower one is meant" in found["class order"].note


def test_no_images_say_nothing():
    empty = np.zeros(0, np.int64)
    assert check_accuracy(empty, empty, NAMES) == []
