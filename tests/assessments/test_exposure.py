"""Exposure of single records from weights to tables: against recomputation, with removal, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from securitynet.assessments.exposure import measure_exposure
from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.attacks import ATTACKS
from securitynet.cli.main import app
from securitynet.errors import ConfigurationError, ModelError, SecurityNetError
from securitynet.files import file_checksum
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import roc
from securitynet.models.loading.load import load_target
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.canaries import CanaryPlan
from securitynet.models.training.loss_traces import read_loss_traces

REMOVED = 12


def make_config(weights, **changes):
    settings = {"weights": weights, "shadows": 8, "fpr": 0.05, "top_share": 0.05, "device": "cpu"}
    return ExposureConfig(**{**settings, "cache": weights.parent / "cache", **changes})


@pytest.fixture(scope="module")
def weights(tmp_path_factory, digits):
    out = tmp_path_factory.mktemp("exposure") / "model.safetensors"
    settings = {"epochs": 3, "learning_rate": 0.05, "schedule": "constant", "device": "cpu"}
    train_target("simple-cnn", digits, out=out, keep_losses=True, **settings)
    return out


@pytest.fixture(scope="module")
def measured(weights):
    """The result with a removal of the first members, the table, and the stored shadow models."""
    members = restore_splits(read_target_record(weights), _load()).members
    listed = weights.parent / "records.txt"
    listed.write_text("\n".join(map(str, members[:REMOVED])))
    return measure_exposure(make_config(weights, retrain_without=str(listed)))


def _load():
    from securitynet.datasets import load

    return load("digits")


@pytest.mark.slow
def test_each_member_is_a_member_of_half_of_the_targets(measured, weights, digits):
    result, records = measured
    members = restore_splits(read_target_record(weights), digits).members
    assert sorted(record.record for record in records) == members.tolist()
    assert {(record.member_of, record.non_member_of) for record in records} == {(4, 4)}
    assert result.shadow_models == 8 and result.members == len(members)
    assert result.most_exposed == tuple(records[:12])
    assert (records[0].identified - records[0].accused) == max(r.identified - r.accused for r in records)
    # At a FPR of 5% of the non-members of each target, members are identified at about that rate or more often.
    assert np.mean([record.identified / 4 for record in records]) > 0.03
    assert result.significant == 0 and any("could not be" in sentence for sentence in result.sentences)


def test_scores_of_the_target_are_those_of_the_lira_attack(measured, weights, digits):
    result, records = measured
    target = load_target("arch:simple-cnn", weights=weights, dataset=digits, device="cpu")
    trained = read_target_record(weights)
    attack = ATTACKS.get(ATTACKS.resolve("lira").name)(shadows={"count": 8})
    data = TrialData(digits, restore_splits(trained, digits), trained)
    context = Context(cache=weights.parent / "cache", device="cpu")
    output = attack(target, data, context, attack.threat_models[0])
    others = output.scores[~output.is_member]
    shares = {int(n): float((others >= s).mean()) for n, s in zip(output.indices, output.scores, strict=True)}
    assert {record.record: record.share for record in records} == pytest.approx(
        {record.record: shares[record.record] for record in records}
    )
    auc = next(m for m in result.measurements if m.name == "lira.auc")
    assert auc.value == pytest.approx(roc.compute_auc(output.scores[output.is_member], others))
    loss = ATTACKS.get(ATTACKS.resolve("loss").name)()
    scores = loss(target, data, context, loss.threat_models[0])
    tail = next(m for m in result.measurements if m.name == "loss.tnr@fnr=0.05")
    members, others = scores.scores[scores.is_member], scores.scores[~scores.is_member]
    cut = np.sort(members)[int(0.05 * (len(members) + 1)) - 1]
    assert tail.value == pytest.approx((others < cut).mean())


def test_loss_traces_reach_the_table(measured, weights):
    kept = read_loss_traces(weights, read_target_record(weights).key)
    expected = dict(zip(kept.records.tolist(), np.subtract(*np.percentile(kept.losses, [75, 25], axis=0)), strict=True))
    assert {r.record: r.loss_trace_iqr for r in measured[1]} == pytest.approx(expected, abs=1e-5)


def test_removal_is_measured_beside_a_control(measured, weights, digits):
    removal = measured[0].removal
    assert len(removal.records) == REMOVED
    assert removal.before.weights is None and removal.after.weights != removal.control.weights
    assert removal.rest == measured[0].members - 2 * REMOVED
    for model in (removal.after, removal.control):
        stored = weights.parent / "cache" / "retrained" / model.weights / "weights.safetensors"
        assert json.loads(stored.with_suffix(".json").read_text())["records"] == measured[0].members - REMOVED
        assert file_checksum(stored) != file_checksum(weights)
        assert 0 <= model.identified <= REMOVED and 0.5 < model.accuracy.value <= 1
    assert any("after training without them" in sentence for sentence in measured[0].sentences)


def test_classes_and_attributes_are_compared(measured, digits):
    groups = measured[0].groups
    assert {group.by for group in groups} == {"class", *digits.attributes}
    assert all(group.identified.low <= group.identified.value <= group.identified.high for group in groups)


def test_the_command_writes_the_result_and_the_table(measured, weights, tmp_path):
    arguments = ["exposure", str(weights), "--shadows", "8", "--fpr", "0.05", "--device", "cpu", "--by", "slant"]
    arguments += ["--cache", str(weights.parent / "cache"), "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "Most exposed members" in ran.output
    result = json.loads((tmp_path / "out" / "exposure.json").read_text())
    assert {group["by"] for group in result["groups"]} == {"slant"}
    with (tmp_path / "out" / "exposure.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == measured[0].members


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fpr": 0.001}, "do not resolve"),
        ({"by": ("hair",)}, "no attribute 'hair'"),
        ({"weights": Path("nothing.safetensors")}, "no"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_training(weights, changes, message):
    config = make_config(weights, cache=weights.parent / "none").model_copy(update=changes)
    with pytest.raises(SecurityNetError, match=message):
        measure_exposure(config)
    assert not (weights.parent / "none" / "shadows").exists()


def test_records_that_cannot_be_removed_are_refused(measured, weights, digits):
    splits = restore_splits(read_target_record(weights), digits)
    for listed, message in (
        (str(splits.non_members[0]), "no members of the model"),
        (",".join(map(str, splits.members[: len(splits.members) // 2 + 1])), "too many"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            measure_exposure(make_config(weights, retrain_without=listed))


def test_a_model_with_canaries_is_not_trained_again_without_records(tmp_path, digits):
    out = tmp_path / "m.safetensors"
    train_target("simple-cnn", digits, out=out, epochs=1, device="cpu", canaries=CanaryPlan(20))
    with pytest.raises(ConfigurationError, match="with canaries"):
        measure_exposure(make_config(out, retrain_without="1"))


def test_weights_without_a_record_are_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="no"):
        measure_exposure(make_config(tmp_path / "m.safetensors"))
