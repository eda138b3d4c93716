"""`securitynet verify` and `sign` as an owner, a checker and a forger use them."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from securitynet.assessments.comparison import read_result
from securitynet.cli.main import main
from securitynet.files import add_digest, write_json
from securitynet.records import TrialResult
from securitynet.reports.grades import add_grades
from securitynet.results.store import TrialStore

AUC = "membership.loss.auc"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A model, another one, and keys: the owner's and a stranger's."""
    from securitynet.models.store.train_target import train_model
    from securitynet.models.training.config import TrainConfig

    root = tmp_path_factory.mktemp("verify")
    for name, seed in (("model", 0), ("other", 1)):
        train_model(TrainConfig(architecture="simple-cnn", dataset="digits", limit=200, epochs=3, seed=seed,
                                out=root / f"{name}.safetensors"))  # fmt: skip
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (root / f"{name}.pem").write_bytes(pem)
        public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (root / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
    return root


@pytest.fixture
def report(box, run):
    """The signed result of an assessment; made once."""
    if not (box / "report" / "result.json").exists():
        code, _, err = run("assess", "arch:simple-cnn", "--weights", box / "model.safetensors", "--dataset", "digits",
                           "--limit", 200, "--attacks", "loss,modified-entropy,correctness", "--detectors", "none",
                           "--out", box / "report")  # fmt: skip
        assert code == 0, err
        assert run("sign", box / "report", "--key", box / "model.pem")[0] == 0
    return box / "report"


def forge(report, folder, change, *, trials=True):
    """A copy of a result with other measurements, as a forger leaves it: grades and digests follow from them.

    Args:
        report: The result.
        folder: Of the copy.
        change: Measurement -> measurement.
        trials: Whether the trial files are changed likewise.
    """
    shutil.copytree(report, folder)
    (folder / "result.intoto.json").unlink()
    stored = read_result(folder)
    measurements = tuple(map(change, stored.document.measurements))
    document = add_grades(stored.document.model_copy(update={"measurements": measurements, "grades": ()}))
    write_json(folder / "result.json", add_digest(document.to_json()))
    for trial in stored.store if trials else ():
        arrays = stored.store.load_arrays(trial)
        forged = trial.model_copy(update={"measurements": tuple(map(change, trial.measurements))})
        TrialStore(folder).save(TrialResult.model_validate(forged.model_dump()), arrays)
    return folder


def lower(measurement):
    if measurement.name != AUC:
        return measurement
    return measurement.model_copy(update={"value": 0.30, "low": 0.25, "high": 0.35})


def test_a_result_is_reproduced_whole_and_in_part(run, box, report):
    code, printed, _ = run("verify", report, "--key", box / "model.pub", "--json")
    outcome = json.loads(printed)
    assert code == 0 and outcome["holds"] and {m["outcome"] for m in outcome["measurements"]} == {"identical"}
    assert {m["name"] for m in outcome["measurements"]} == {m.name for m in read_result(report).document.measurements}
    code, printed, _ = run("verify", report, "--sample", 0.2, "--seed", 1)
    assert code == 0 and "(1 of 3 trials were run again)" in printed


def test_forged_numbers_are_found_by_running_again(run, box, report, tmp_path):
    forged = forge(report, tmp_path / "forged", lower)
    assert run("verify", forged, "--sample", 0)[0] == 0  # all files agree with each other: nothing shows but a new run
    code, printed, _ = run("verify", forged)
    assert code == 4 and f"{AUC} " in printed and "different" in printed
    assert run("verify", forge(report, tmp_path / "half", lower, trials=False), "--sample", 0)[0] == 4
    wide = forge(
        report, tmp_path / "wide", lambda m: m.model_copy(update={"low": 0.0, "high": 1.0}) if m.name == AUC else m
    )
    assert run("verify", wide)[0] == 4  # the value is right, and the interval is not
    # So do the controls, which say whether members and non-members differ anyway.
    calm = forge(report, tmp_path / "calm", lambda m: m.model_copy(update={"value": 0.1, "low": 0.09, "high": 0.11})
                 if m.name == "membership.blind.auc" else m)  # fmt: skip
    code, printed, _ = run("verify", calm, "--sample", 0.2)
    assert code == 4 and "membership.blind.auc" in printed
    # Accuracies stand in no trial file; they are measured again whatever the sample is.
    better = forge(report, tmp_path / "better", lambda m: m.model_copy(update={"value": 1.0, "low": 0.99, "high": 1.0})
                   if m.name == "target.test_accuracy" else m)  # fmt: skip
    assert run("verify", better, "--sample", 0.2)[0] == 4


def test_other_weights_and_other_data_are_not_those_of_the_result(run, box, report):
    code, _, err = run("verify", report, "--weights", box / "other.safetensors", "--sample", 0.2)
    assert code == 4 and "model at hand is not that of the result" in err
    code, _, err = run("verify", report, "--members", write_members(box), "--sample", 0.2)
    assert code == 4 and "at hand is not that of the result" in " ".join(err.split())
    # Without running anything again, what the user gives is compared all the same.
    assert run("verify", report, "--weights", box / "other.safetensors", "--sample", 0)[0] == 4
    assert run("verify", report, "--weights", box / "model.safetensors", "--sample", 0)[0] == 0


def write_members(box):
    (box / "members.csv").write_text("record\n" + "".join(f"{number}\n" for number in range(60)))
    return box / "members.csv"


def test_foreign_keys_removed_signatures_and_renamed_models(run, box, report, tmp_path):
    code, _, err = run("verify", report, "--key", box / "other.pub", "--sample", 0)
    assert code == 4 and "not by this key" in err
    stripped = tmp_path / "stripped"
    shutil.copytree(report, stripped)
    (stripped / "result.intoto.json").unlink()
    code, _, err = run("verify", stripped, "--key", box / "model.pub", "--sample", 0)
    assert code == 4 and "not signed" in err
    assert run("sign", stripped, "--key", box / "other.pem")[0] == 0  # a stranger signs what he did not make
    assert run("verify", stripped, "--key", box / "model.pub", "--sample", 0)[0] == 4
    assert run("sign", stripped, "--key", box / "other.pub")[0] == 1  # a public key signs nothing
    for content in (b"", b"{}", b"[" * 100_000, b'{"payloadType": 1}'):
        (stripped / "result.intoto.json").write_bytes(content)
        assert run("verify", stripped, "--key", box / "model.pub", "--sample", 0)[0] == 4
    # Another model under the same numbers: the trial files say whose they are.
    renamed = forge(report, tmp_path / "renamed", lambda m: m, trials=False)
    document = read_result(renamed).document
    target = document.target.model_copy(update={"checksum": "0" * 64})
    write_json(renamed / "result.json", add_digest(document.model_copy(update={"target": target}).to_json()))
    assert run("verify", renamed, "--sample", 0)[0] == 4


def test_verdicts_that_do_not_follow_are_found(run, report, tmp_path):
    forged = forge(report, tmp_path / "graded", lambda m: m, trials=False)
    document = read_result(forged).document
    other = {"high": "none shown"}
    grades = tuple(g.model_copy(update={"grade": other.get(g.grade, "high")}) for g in document.grades)
    write_json(forged / "result.json", add_digest(document.model_copy(update={"grades": grades}).to_json()))
    code, _, err = run("verify", forged, "--sample", 0)
    assert code == 4 and "does not follow from the measurements" in err


def test_a_counter_signature_needs_a_reproduction(run, box, report, tmp_path):
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    counter = ("--counter-sign", box / "other.pem")
    assert run("verify", folder, "--sample", 0, *counter)[0] == 1  # nothing was run again
    assert not (folder / "result.reproduced.intoto.json").exists()
    assert run("verify", folder, "--key", box / "model.pub", "--sample", 0.2, *counter)[0] == 0
    assert (folder / "result.reproduced.intoto.json").exists()


def test_the_database_of_a_result_is_not_opened_unless_it_is_given(report, run, tmp_path):
    copy = shutil.copytree(report, tmp_path / "copy")
    document = read_result(copy).document
    named = {"model": "catalog:mine/one", "db": "postgresql://host.invalid/catalog"}
    stated = document.model_copy(update={"settings": {**document.settings, **named}})
    write_json(copy / "result.json", add_digest(stated.to_json()))
    (copy / "result.intoto.json").unlink(missing_ok=True)
    code, _, error = run("verify", copy)
    assert code == 1 and "--db" in error
    code, _, error = run("verify", copy, "--db", tmp_path / "none.sqlite")
    assert code == 1 and "there is no catalog" in error
