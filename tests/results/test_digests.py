"""Files of results carry a digest of their content: a changed byte never passes for a result."""

from __future__ import annotations

import json

import pytest

from securitynet.errors import ModelError
from securitynet.files import add_digest, check_digest, hash_stably
from securitynet.models.store.record_files import read_model_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.recipe import Recipe
from securitynet.records import TrialResult
from securitynet.results.store import TrialStore, parse_trial, write_trial_text
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore, parse_study_target

TRIAL = {
    "spec": {
        "target": {"reference": "arch:a", "checksum": "c", "preprocessing": {}, "head": "logits"},
        "dataset": {"reference": "d", "fingerprint": "f"},
        "split": {"name": "public", "fingerprint": "s"},
        "kind": "attack",
        "method": "membership.loss",
        "configuration": {"a": 0.1},
        "threat_model": {"access": "black-box", "auxiliary": "none"},
        "seed": 0,
        "precision": "fp32",
    },
    "status": "skipped",
    "reason": "für den Test",
    "finished": "2026-01-01T00:00:00+00:00",
}


@pytest.fixture(scope="module")
def trial():
    return TrialResult.model_validate(TRIAL)


def flips(text: bytes):
    """The text with one bit of one byte changed, for every byte."""
    for position, byte in enumerate(text):
        yield text[:position] + bytes([byte ^ 1 << position % 7]) + text[position + 1 :]


def test_a_digest_covers_every_field():
    document = add_digest({"a": 1.0, "b": {"c": [None, "ü", 1e-300]}})
    assert document["digest"] == "sha256:" + hash_stably({"a": 1.0, "b": {"c": [None, "ü", 1e-300]}}, 64)
    assert check_digest(json.loads(json.dumps(document))) == {"a": 1.0, "b": {"c": [None, "ü", 1e-300]}}
    assert add_digest(document) == document
    for changed in ({**document, "a": 2.0}, {**document, "d": 1}, {**document, "digest": "sha256:0"}):
        with pytest.raises(ValueError, match="digest"):
            check_digest(changed)
    assert check_digest({"a": 1}) == {"a": 1}  # of a version without digests
    with pytest.raises(ValueError, match="digest"):
        check_digest({"a": 1}, required=True)


def test_no_flipped_byte_of_a_trial_passes(trial):
    text = write_trial_text(trial).encode()
    assert parse_trial(text) == trial
    for changed in flips(text):
        try:
            assert parse_trial(changed) == trial  # only where JSON means the same
        except ValueError:
            continue
        assert json.loads(changed) == json.loads(text)


def test_no_flipped_byte_of_a_target_passes(tmp_path):
    record = StudyTargetRecord(key="k", label="a", status="failed", reason="none", finished="2026")
    StudyTargetStore(tmp_path).save(record)
    text = (tmp_path / StudyTargetStore.name("k")).read_bytes()
    assert parse_study_target(text) == record
    for changed in flips(text):
        try:
            assert parse_study_target(changed) == record
        except ValueError:
            continue
        assert json.loads(changed) == json.loads(text)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_cut_files_run_again(tmp_path, trial, length, caplog):
    """After a power loss, the newest files may be empty or cut."""
    store = TrialStore(tmp_path)
    store.save(trial)
    path = store.path(trial.id)
    path.write_bytes(path.read_bytes()[: length - 1 if length < 0 else length])
    assert store.load(trial.id) is None and "will run again" in caplog.text


def test_files_of_earlier_versions_are_read(trial):
    value = json.loads(write_trial_text(trial))
    del value["digest"]
    assert parse_trial(json.dumps(value)) == trial


def test_model_records(tmp_path, digits):
    out = tmp_path / "model.safetensors"
    train_target("simple-cnn", digits, out=out, recipe=Recipe(epochs=1), device="cpu")
    path = out.with_suffix(".json")
    value = json.loads(path.read_text())
    assert check_digest(value, required=True) and read_model_record(out) is not None
    for changed in ({**value, "test_accuracy": 0.99}, {**value, "digest": "sha256:" + "0" * 64}):
        path.write_text(json.dumps(changed))
        with pytest.raises(ModelError, match="digest does not match"):
            read_model_record(out)
    path.write_text(json.dumps({name: item for name, item in value.items() if name != "digest"}))
    assert read_model_record(out) is not None
