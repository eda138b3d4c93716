"""Pre-trained reference models in place of shadow models: the scores by hand, what is said of them, what is refused."""

import numpy as np
import pytest

from securitynet.assessments.method_settings import make_method
from securitynet.attacks.membership.lira import LiRA
from securitynet.attacks.membership.reference_calibration import ReferenceCalibration
from securitynet.attacks.membership.rmia import RMIA
from securitynet.attacks.membership.rmia_offline import RMIAOffline
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.metrics import roc
from securitynet.models.loading.load import load_target
from securitynet.models.store.train_target import train_target
from securitynet.testing.cases import make_null_case, make_overfitted_case


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A model of the same task that saw other records: a reference with its weights."""
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    train_target("simple-cnn", "digits", out=path, epochs=4, learning_rate=0.05, split_seed=3, device="cpu")
    return f"arch:simple-cnn={path}"


def run(attack, case):
    return attack(case.target, case.data, Context(device="cpu"), attack.threat_models[0])


def log_confidence(target, data, records):
    posteriors = target.posteriors(data.dataset.batch(records)).double().numpy()
    return np.log(posteriors[np.arange(len(records)), data.dataset.labels[records]])


def test_calibration_is_the_difference_of_the_log_confidences(reference):
    case = make_overfitted_case()
    output = run(ReferenceCalibration(references=reference), case)
    model, _, weights = reference.partition("=")
    other = load_target(model, weights=weights, dataset=case.data.dataset, device="cpu")
    expected = log_confidence(case.target, case.data, output.indices) - log_confidence(other, case.data, output.indices)
    assert np.allclose(output.scores, expected, atol=1e-3)
    assert roc.measure_auc(output.scores[output.is_member], output.scores[~output.is_member]).low > 0.6
    assert output.threshold == pytest.approx(np.median(output.scores))
    assert "not known which records they were trained on" in output.notes[0]
    assert str(weights) not in output.notes[0] and "median" in output.notes[1]


@pytest.mark.parametrize("attack", [RMIA, RMIAOffline])
def test_rmia_counts_the_population_that_a_record_beats(attack, reference):
    case = make_overfitted_case()
    output = run(attack(references=[reference], break_ties=False), case)
    model, _, weights = reference.partition("=")
    other = load_target(model, weights=weights, dataset=case.data.dataset, device="cpu")

    def ratio(records):
        return log_confidence(case.target, case.data, records) - log_confidence(other, case.data, records)

    splits = case.data.splits
    shadow = np.union1d(splits.shadow_train, splits.shadow_test)
    population = ratio(splits.known_non_members if attack is RMIA else shadow)
    expected = (ratio(output.indices)[:, None] >= population[None, :]).mean(axis=1)
    assert np.abs(output.scores - expected).max() < 0.03  # single precision decides a few comparisons
    assert roc.measure_auc(output.scores[output.is_member], output.scores[~output.is_member]).low > 0.6
    assert output.held_out.all() == (attack is RMIAOffline)


@pytest.mark.parametrize("attack", [RMIA, ReferenceCalibration])
def test_who_was_never_seen_shows_nothing(attack, reference):
    output = run(attack(references=reference), make_null_case())
    auc = roc.measure_auc(output.scores[output.is_member], output.scores[~output.is_member])
    assert auc.low <= 0.5 + 0.02 and auc.high >= 0.5 - 0.02


def test_the_target_itself_is_no_reference(reference):
    model, _, weights = reference.partition("=")
    case = make_overfitted_case()
    own = load_target(model, weights=weights, dataset=case.data.dataset, device="cpu")
    attack = ReferenceCalibration(references=reference)
    with pytest.raises(ConfigurationError, match="is the target itself"):
        attack(own, case.data, Context(device="cpu"), attack.threat_models[0])


def test_configurations_without_references_are_as_they_were():
    for attack in (RMIA(), RMIAOffline(), ReferenceCalibration()):
        assert "references" not in attack.model_dump(mode="json")
    assert "references" not in LiRA.model_fields
    with pytest.raises(ConfigurationError, match="no file"):
        make_method("attack", "membership.rmia", {"references": [{"model": "arch:simple-cnn", "weights": "none.pt"}]})
