"""Spectral signatures: by hand, on poisoned training records, and on clean ones."""

import numpy as np
import pytest
from scipy import stats

from backdoored import GOAL, PATCH
from securitynet.detectors._spectral.signatures import Signatures, compute_scores
from securitynet.detectors.spectral_signatures import SpectralSignatures
from securitynet.methods.context import Context


def run(target, data, **settings):
    detector = SpectralSignatures(**settings)
    output = detector(target, data, Context(), detector.threat_models[0])
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}, output


def test_scores_are_projections_from_the_clean_median_towards_the_end_without_clean_images():
    training = np.array([[0, 0], [2, 0], [4, 0], [-10, 1], [-12, 0]], np.float32)
    clean = np.array([[1, 0], [3, 1], [2, 0]], np.float32)
    own, beside, p_value = compute_scores(training, clean)
    values, vectors = np.linalg.eigh(np.cov(np.concatenate([training, clean]).T))
    direction = vectors[:, values.argmax()] * -np.sign(vectors[0, values.argmax()])  # towards the two at -10 and -12
    expected = np.concatenate([training, clean]) @ direction
    np.testing.assert_allclose(own, expected[:5] - np.median(expected[5:]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(beside, expected[5:] - np.median(expected[5:]), rtol=1e-5, atol=1e-5)
    # The two, and then a third at 0, precede all clean images: 5/8 · 4/7 · 3/6, at either end.
    assert p_value == pytest.approx(2 * 5 / 8 * 4 / 7 * 3 / 6)


@pytest.mark.parametrize("records, clean, dims", [(90, 45, 128), (60, 30, 10)])
def test_no_class_is_suspected_more_often_than_stated_where_all_records_are_alike(records, clean, dims):
    """A direction of the training records alone gives p < 0.05 in 99% of such cases with 128 dimensions."""
    random = np.random.default_rng(0)
    p_values = np.array(
        [compute_scores(random.normal(size=(records, dims)), random.normal(size=(clean, dims)))[2] for _ in range(200)]
    )
    for level in (0.05, 0.2):
        assert stats.binomtest(int((p_values < level).sum()), 200).proportion_ci(0.99).low <= level


def test_finds_the_poisoned_class_and_records(patched):
    target, _, dirty, chosen = patched
    measured, output = run(target, dirty)
    p_values, suspect = output.judge()
    assert output.classes[p_values < 0.05].tolist() == [GOAL]
    caught = np.isin(output.indices, chosen)
    assert suspect[caught].mean() > 0.7 and suspect[~caught].mean() < 0.02
    assert measured["spectral-p-value"].value < 1e-6 and "detection-rate" not in measured
    again = Signatures.from_arrays(output.arrays())
    np.testing.assert_array_equal(again.scores, output.scores)


def test_with_a_known_trigger_detection_is_measured(patched):
    measured, output = run(*patched[:2], trigger=PATCH, rate=0.1)
    assert output.poisoned.sum() == 90
    assert measured["detection-rate"].value > 0.6 and measured["false-rejection-rate"].value < 0.02


def test_finds_nothing_where_nothing_is_hidden(unpatched):
    measured, output = run(*unpatched)
    assert measured["spectral-p-value"].value > 0.05 and measured["suspect-records"].value == 0
    assert output.poisoned is None


def test_classes_with_few_records_are_not_tested():
    empty = Signatures(
        np.arange(3), np.zeros(3, np.int64), np.full(3, np.nan), np.zeros(3, bool), np.array([0]), np.array([np.nan])
    )
    (measurement,) = empty.measurements(level=0.95, fprs=(), seed=0)
    assert measurement.value is None and "enough records" in measurement.note
