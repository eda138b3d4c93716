"""Spectral signatures: by hand, on poisoned training records, and on clean ones."""

import numpy as np

from backdoored import GOAL, PATCH
from securitynet.detectors._spectral.signatures import Signatures, compute_scores
from securitynet.detectors.spectral_signatures import SpectralSignatures
from securitynet.methods.context import Context


def run(target, data, **settings):
    detector = SpectralSignatures(**settings)
    output = detector(target, data, Context(), detector.threat_models[0])
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}, output


def test_scores_are_squared_projections_from_the_clean_mean():
    training = np.array([[0, 0], [2, 0], [4, 0], [10, 1]], np.float32)
    clean = np.array([[1, 5], [3, 7]], np.float32)
    own, beside = compute_scores(training, clean)
    values, vectors = np.linalg.eigh(np.cov(training.T))
    direction = vectors[:, values.argmax()]
    np.testing.assert_allclose(own, ((training - [2, 6]) @ direction) ** 2, rtol=1e-5)
    np.testing.assert_allclose(beside, ((clean - [2, 6]) @ direction) ** 2, rtol=1e-5)


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
