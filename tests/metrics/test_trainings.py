"""Rates over several trainings: hand-worked values, and intervals that cover known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import roc, trainings
from securitynet.records import Direction


def simulate(random, shift, spread, shape):
    """Normal scores with a common error in each training, members shifted; the coins are fair."""
    included = random.integers(0, 2, shape).astype(bool)
    common = spread * random.standard_normal((shape[0], 1))
    return random.standard_normal(shape) + np.where(included, shift, 0.0) + common, included


def true_tpr(shift, spread, fpr):
    deviation = np.sqrt(1 + spread**2)
    return stats.norm.sf(stats.norm.isf(fpr) - shift / deviation)


@pytest.mark.parametrize(
    ("shift", "spread", "shape", "fpr"),
    [(0.0, 0.5, (8, 45), 0.05), (2.0, 0.5, (8, 45), 0.05)],
)
def test_intervals_hold_what_further_trainings_would_show(shift, spread, shape, fpr):
    random = np.random.default_rng(3)
    truth, held, alarms = true_tpr(shift, spread, fpr), 0, 0
    for _ in range(30):
        scores, included = simulate(random, shift, spread, shape)
        rate = trainings.measure_mean_tpr(scores, included, np.ones(shape, dtype=bool), fpr)
        held += rate.low <= truth <= rate.high
        alarms += rate.low > fpr
    assert held >= 27
    if shift == 0:
        assert alarms <= 1


@pytest.mark.slow
def test_coverage_of_the_tpr_over_trainings():
    random = np.random.default_rng(4)
    for shift, spread, shape, fpr in [
        (0.0, 0.5, (8, 12), 0.1), (1.0, 0.0, (8, 12), 0.1), (0.0, 0.5, (8, 45), 0.05), (2.0, 0.0, (8, 45), 0.05),
        (2.0, 0.5, (8, 45), 0.05), (1.0, 0.8, (8, 100), 0.1), (3.0, 0.0, (8, 120), 0.01), (2.0, 0.3, (4, 60), 0.1),
    ]:  # fmt: skip
        truth, held, alarms = true_tpr(shift, spread, fpr), 0, 0
        for _ in range(400):
            scores, included = simulate(random, shift, spread, shape)
            rate = trainings.measure_mean_tpr(scores, included, np.ones(shape, dtype=bool), fpr)
            held += rate.value is None or rate.low <= truth <= rate.high
            alarms += rate.value is not None and rate.low > fpr
        assert held >= 0.93 * 400, (shift, spread, shape, fpr)
        assert shift > 0 or alarms <= 0.03 * 400


def test_without_differences_between_trainings_the_value_is_that_of_all_scores():
    scores, included = simulate(np.random.default_rng(0), 1.5, 0.0, (8, 60))
    judged = np.ones(scores.shape, dtype=bool)
    judged[0, :10] = False
    rate = trainings.measure_mean_tpr(scores, included, judged, 0.05)
    pooled = roc.measure_tpr_at_fpr(scores[included & judged], scores[~included & judged], 0.05)
    assert rate.value == pooled.value and rate.n == pooled.n
    assert rate.low <= pooled.low and rate.high >= pooled.high


def test_few_records_resolve_no_low_rate():
    scores, included = simulate(np.random.default_rng(0), 1.5, 0.0, (8, 12))
    assert trainings.measure_mean_tpr(scores, included, np.ones(scores.shape, dtype=bool), 0.01).value is None
    assert trainings.choose_fpr(48, 8, (0.01, 0.05, 0.1), 0.95) == 0.1
    assert trainings.choose_fpr(5000, 8, (0.01, 0.05, 0.1), 0.95) == 0.01


def test_the_mean_accuracy_has_the_variance_of_records_and_of_trainings():
    hits = np.array([80.0, 90, 85, 95])
    mean = trainings.measure_mean_rate("accuracy", hits, 100, direction=Direction.HIGHER)
    assert mean.value == pytest.approx(0.875)
    between = stats.t.ppf(0.975, 3) * np.std(hits / 100, ddof=1) / 2
    assert mean.value - mean.low > between and mean.high - mean.value > between
    equal = trainings.measure_mean_rate("accuracy", np.full(4, 87.5), 100, direction=Direction.HIGHER)
    assert equal.high - equal.low < mean.high - mean.low


def test_the_mean_auc_is_that_of_its_trainings():
    random = np.random.default_rng(0)
    groups = [(random.standard_normal(50) + 1, random.standard_normal(60)) for _ in range(4)]
    mean = trainings.measure_mean_auc("auc", groups)
    assert mean.value == pytest.approx(np.mean([roc.compute_auc(*group) for group in groups]))
    assert mean.low < stats.norm.cdf(1 / np.sqrt(2)) < mean.high
