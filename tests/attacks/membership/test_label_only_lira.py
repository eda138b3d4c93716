"""Label-only LiRA and LiRA on the most exposed records: against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership.label_only_lira import LabelOnlyLira, compute_log_ratio
from securitynet.attacks.membership.lira_most_exposed import LiraMostExposed, measure_marks
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import LabelsOnly

SHADOWS = {"count": 8, "architecture": "simple-cnn", "recipe": {"epochs": 12, "optimizer": "adam",
           "learning_rate": 3e-3, "batch_size": 16, "schedule": "constant", "weight_decay": 0.0}}  # fmt: skip


def test_the_likelihood_ratio_by_hand():
    shadows = np.array([[1.0, 1], [1, 0], [0, 0], [0, 0]])
    included = np.array([[True, True], [True, False], [False, True], [False, False]])
    inside, outside = (shadows[included].sum() + 0.5) / 5, (shadows[~included].sum() + 0.5) / 5
    first = np.log((2 + inside) / 3) - np.log((0 + outside) / 3)
    second = np.log(1 - (1 + inside) / 3) - np.log(1 - (0 + outside) / 3)
    np.testing.assert_allclose(compute_log_ratio(np.array([1.0, 0]), shadows, included), [first, second])


def test_leave_one_out_is_the_ratio_to_the_other_models():
    random = np.random.default_rng(0)
    agreed, included = random.integers(0, 2, (6, 3, 5)).astype(float), random.integers(0, 2, (6, 5)).astype(bool)
    scores = LabelOnlyLira().score_leave_one_out(agreed, included)
    rest = [0, 1, 3, 4, 5]
    expected = sum(compute_log_ratio(agreed[2, view], agreed[rest, view], included[rest]) for view in range(3))
    np.testing.assert_allclose(scores[2], expected)


def test_marks_are_differences_of_means():
    random = np.random.default_rng(0)
    included = random.integers(0, 2, (10, 6)).astype(bool)
    included[:, 5] = True
    signals = random.standard_normal((10, 6))
    marks = measure_marks(SignalEvidence(np.zeros(6), signals, included))
    for record in range(5):
        inside = included[:, record]
        assert marks[record] == pytest.approx(signals[inside, record].mean() - signals[~inside, record].mean())
    assert marks[5] == -np.inf


def test_behind_labels_only_label_only_lira_gives_the_same_scores(overfitted, tmp_path):
    target, splits, dataset = overfitted
    data, attack = TrialData(dataset, splits), LabelOnlyLira(shadows={**SHADOWS, "count": 4}, queries=5)
    model = attack.threat_models[0]
    seen = attack(target, data, Context(cache=tmp_path), model)
    hidden = attack(target.through(LabelsOnly()), data, Context(cache=tmp_path), model)
    np.testing.assert_array_equal(seen.scores, hidden.scores)
    assert seen["auc"] > 0.55


@pytest.mark.slow
def test_the_most_exposed_records_are_more_exposed_than_the_average(overfitted, tmp_path):
    from securitynet.attacks.membership.lira import LiRA

    target, splits, dataset = overfitted
    data, attack = TrialData(dataset, splits), LiraMostExposed(shadows=SHADOWS, exposed=0.2)
    model = attack.threat_models[0]
    worst = attack(target, data, Context(cache=tmp_path), model)
    everyone = LiRA(shadows=SHADOWS)(target, data, Context(cache=tmp_path), model)
    assert len(worst.scores) < len(everyone.scores) and set(worst.indices) <= set(everyone.indices)
    assert worst["auc"] > everyone["auc"]
    assert any("clearest mark" in note for note in worst.notes)
