"""The two-sample classifier: by hand, its level, and on poisoned and clean training records."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from backdoored import GOAL, PATCH
from securitynet.detectors._two_sample.discriminant import compare_with_clean, fit_discriminant
from securitynet.detectors._two_sample.features import compute_features, draw_filters
from securitynet.detectors.two_sample import TwoSample
from securitynet.methods.context import Context


def run(target, data, **settings):
    """Run the detector with all non-members as clean images: about 90 of each class."""
    data = dataclasses.replace(data, splits=dataclasses.replace(data.splits, known_non_members=data.splits.non_members))
    detector, context = TwoSample(**settings), Context()
    output = detector(target, data, context, detector.threat_models[0])
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}, output, context


def test_features_are_pooled_responses_to_patches_and_coarse_pixels(digits):
    images = digits.batch(np.arange(5))
    filters = draw_filters(images, torch.Generator().manual_seed(0))
    assert filters.shape == (64, 1, 2, 2)
    np.testing.assert_allclose(filters.mean(dim=(1, 2, 3)).numpy(), 0, atol=1e-6)
    features = compute_features(images, filters)
    image, kernel = images[3, 0].numpy() / 255, filters[7, 0].numpy()
    responses = np.array([[max((image[y : y + 2, x : x + 2] * kernel).sum(), 0) for x in range(7)] for y in range(7)])
    upper_left = responses[:4, :4]  # rows 0 to ceil(7 / 2) - 1
    assert features[3, 4 * 7] == pytest.approx(upper_left.mean(), abs=1e-6)
    assert features[3, 4 * 64 + 4 * 7] == pytest.approx(upper_left.max(), abs=1e-6)
    np.testing.assert_allclose(features[3, 8 * 64 :], image.flatten(), atol=1e-6)


def test_the_discriminant_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(400, 3)) * [1, 2, 3] + [1, 1, 0], random.normal(size=(400, 3)) * [1, 2, 3]
    direction = fit_discriminant(first, second)
    model = LinearDiscriminantAnalysis(solver="lsqr").fit(np.concatenate([first, second]), np.repeat([1, 0], 400))
    expected = model.coef_[0]
    cosine = direction @ expected / np.linalg.norm(direction) / np.linalg.norm(expected)
    assert cosine > 0.99  # but for the shrinkage


def test_perfectly_separate_samples_by_hand():
    """In each half 10 of 10 records lie beyond 5 clean ones: 10! 5! / 15! = 1/3003, for either test."""
    training, clean = np.linspace(5, 6, 20)[:, None], np.linspace(0, 1, 10)[:, None]
    scores, beyond, p_value = compare_with_clean(training, clean, np.random.default_rng(0))
    assert beyond.all() and scores.min() > 0
    assert p_value == pytest.approx(4 / 3003)
    assert compare_with_clean(np.ones((20, 1)), np.ones((10, 1)), np.random.default_rng(0))[2] == 1.0


def test_no_class_is_suspected_more_often_than_stated_where_all_records_are_alike():
    random = np.random.default_rng(0)
    p_values = np.array(
        [compare_with_clean(random.normal(size=(60, 10)), random.normal(size=(30, 10)), random)[2] for _ in range(200)]
    )
    for level in (0.05, 0.2):
        assert stats.binomtest(int((p_values < level).sum()), 200).proportion_ci(0.99).low <= level


def test_finds_the_poisoned_class_without_a_query(patched):
    target, _, dirty, chosen = patched
    measured, output, context = run(target, dirty)
    p_values, suspect = output.judge()
    assert output.classes[p_values < 0.05].tolist() == [GOAL]
    caught = np.isin(output.indices, chosen)
    assert suspect[~caught].mean() < 0.02 and suspect[caught].mean() > suspect[~caught].mean()
    assert measured["two-sample-p-value"].value < 0.05 and "detection-rate" not in measured
    assert context.queries().total == 0
    again = type(output).from_arrays(output.arrays())
    np.testing.assert_array_equal(again.scores, output.scores)


def test_with_a_known_trigger_detection_is_measured(patched):
    measured, output, context = run(*patched[:2], trigger=PATCH, rate=0.3)
    assert output.poisoned.sum() == 270 and context.queries().total > 0
    assert measured["detection-rate"].value > measured["false-rejection-rate"].value


def test_finds_nothing_where_nothing_is_hidden(unpatched):
    measured, output, _ = run(*unpatched)
    assert measured["two-sample-p-value"].value > 0.05 and measured["suspect-records"].value == 0
    assert output.poisoned is None
