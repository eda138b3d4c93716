"""Statements, signatures, redaction and exports, checked with the tools of others where there are any."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pandas
import pytest
import yaml

from securitynet.assessments import verification
from securitynet.assessments.comparison import read_result
from securitynet.assessments.policy import judge_bounds, read_policy
from securitynet.errors import ConfigurationError
from securitynet.files import write_json
from securitynet.records import FAMILIES
from securitynet.reports.grades import add_grades
from securitynet.results import signing
from securitynet.results.exports import FORMATS, render
from securitynet.results.exports.atlas import TECHNIQUES
from securitynet.results.exports.texts import split_name
from securitynet.results.redaction import clean_text, redact_document
from securitynet.results.statement import STATEMENT_TYPE, find_changes, find_contradictions, make_statement
from stored_results import ATTACK, N, write_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A result with grades, a policy that is not met, and settings with paths of a machine."""
    root = tmp_path_factory.mktemp("evidence")
    random = np.random.default_rng(0)
    is_member = np.arange(N) < N // 2
    document = write_result(root / "result", "a" * 64, random.normal(is_member, 1), random.random(N) < 0.9)
    (root / "policy.toml").write_text('"target.test_accuracy" = { min = 0.99 }\n"membership.*.auc" = { max = 0.9 }')
    outcome = judge_bounds(read_policy(root / "policy.toml"), document.measurements)
    settings = {
        "model": "arch:a", "dataset": "folder:/home/strange-user/photos", "weights": "/home/strange-user/w/model.st",
    }  # fmt: skip
    dataset = document.dataset.model_copy(update={"reference": "folder:/home/strange-user/photos"})
    target = document.target.model_copy(update={"notes": ("read from /home/strange-user/w/model.st as it is",)})
    update = {"policy": outcome, "settings": settings, "dataset": dataset, "target": target}
    document = add_grades(document.model_copy(update=update))
    write_json(root / "result" / "result.json", document.to_json())
    return root / "result"


@pytest.fixture(scope="module")
def document(folder):
    return read_result(folder).document


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys, as OpenSSL writes them."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    root = tmp_path_factory.mktemp("keys")
    for name, password in (("own", None), ("foreign", b"secret")):
        key = Ed25519PrivateKey.generate()
        scheme = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, scheme)
        (root / f"{name}.pem").write_bytes(pem)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (root / f"{name}.pub").write_bytes(public)
    return root


def signed(folder, keys):
    stored = read_result(folder)
    return signing.sign_statement(
        make_statement(stored.document, stored.store), signing.read_private_key(keys / "own.pem")
    )


def test_the_envelope_is_one_that_others_verify(folder, keys):
    """securesystemslib is what in-toto itself verifies envelopes with."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    envelope = signed(folder, keys)
    theirs = Envelope.from_dict(json.loads(json.dumps(envelope)))
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = SSlibKey.from_crypto(load_pem_public_key((keys / "own.pub").read_bytes()), envelope["signatures"][0]["keyid"])
    assert list(theirs.verify([key], threshold=1))
    statement = json.loads(theirs.payload)
    assert statement["_type"] == STATEMENT_TYPE
    check = statement["predicate"]["checks"][0]
    assert (check["metric"], check["comparator"], check["threshold"]) == ("target.test_accuracy", ">=", 0.99)
    assert check["passed"] is False and check["sample_size"] == N // 2
    assert statement["predicate"]["checks"][1]["passed"] is True


def test_a_changed_statement_and_a_foreign_key_are_refused(folder, keys):
    envelope = signed(folder, keys)
    own, foreign = (signing.read_public_key(keys / f"{name}.pub") for name in ("own", "foreign"))
    assert signing.open_envelope(envelope, own)[0]["predicateType"] == "urn:securitynet:assessment:1"
    with pytest.raises(signing.SignatureError, match="not by this key"):
        signing.open_envelope(envelope, foreign)
    payload = base64.b64decode(envelope["payload"]).replace(b'"passed": false', b'"passed": true ')
    changed = {**envelope, "payload": base64.b64encode(payload).decode()}
    with pytest.raises(signing.SignatureError, match="was changed"):
        signing.open_envelope(changed, own)
    for nothing in (
        {},
        [],
        "x",
        {**envelope, "signatures": [{}]},
        {**envelope, "payload": "%"},
        {**envelope, "payload": "MQ=="},
    ):
        with pytest.raises(signing.SignatureError):
            signing.open_envelope(nothing, own)


def test_keys_that_are_none_are_refused_in_a_sentence(keys, tmp_path):
    with pytest.raises(ConfigurationError, match="can't be read"):
        signing.read_private_key(keys / "foreign.pem")  # encrypted, and no password
    assert signing.read_private_key(keys / "foreign.pem", "secret")
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(ConfigurationError):
        signing.read_private_key(tmp_path / "no.pem")
    with pytest.raises(ConfigurationError):
        signing.read_public_key(tmp_path / "no.pem")


def test_every_changed_byte_of_the_files_is_found(folder, keys):
    stored = read_result(folder)
    statement = make_statement(stored.document, stored.store)
    assert find_changes(statement, stored.document, stored.store) == []
    (trial,) = stored.document.trials
    for suffix, part in ((".json", "record"), (".npz", "arrays")):
        path = stored.store.path(trial.id, suffix)
        content = path.read_bytes()
        for position in np.random.default_rng(0).integers(0, len(content), 20):
            flipped = bytearray(content)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            assert any(part in said for said in find_changes(statement, stored.document, stored.store))
        path.write_bytes(content)
    redacted = make_statement(stored.document, stored.store, redacted=True)
    assert "strange-user" not in json.dumps(redacted)
    assert find_changes(redacted, stored.document, stored.store) == []
    worse = stored.document.model_copy(update={"measurements": stored.document.measurements[1:]})
    assert "measurements" in find_changes(redacted, worse, stored.store)[0]
    better = stored.document.model_copy(update={"policy": None})
    assert "policy" in find_changes(statement, better, stored.store)[0]


def test_a_result_that_contradicts_its_trials_is_found(folder):
    stored = read_result(folder)
    assert find_contradictions(stored.document, stored.store) == []
    changed = tuple(
        m.model_copy(update={"value": 0.5, "low": 0.49, "high": 0.51}) if m.name == f"{ATTACK}.auc" else m
        for m in stored.document.measurements
    )
    said = find_contradictions(stored.document.model_copy(update={"measurements": changed}), stored.store)
    assert len(said) == 1 and f"{ATTACK}.auc" in said[0]


def test_no_code_of_a_stranger_is_run(document, tmp_path):
    for name, value in (("model", "python:evil.py:make"), ("dataset", "http://host/x"), ("architecture", "python:a:b")):
        hostile = document.model_copy(update={"settings": {**document.settings, name: value}})
        with pytest.raises(ConfigurationError, match="would run code or query a server"):
            verification.make_configuration(hostile, [ATTACK], tmp_path, {})
    trusted = document.model_copy(update={"settings": {**document.settings, "trust": True}})
    assert verification.make_configuration(trusted, [ATTACK], tmp_path, {}).trust is False
    config = verification.make_configuration(document, [ATTACK], tmp_path, {"model": "python:own.py:make"})
    assert config.attacks == (ATTACK,) and config.detectors == ("none",) and config.rerun


def test_what_counts_as_reproduced(document):
    stated = next(m for m in document.measurements if m.name == f"{ATTACK}.auc")
    near = stated.model_copy(update={"value": 0.61})
    far = stated.model_copy(update={"value": 0.8, "low": 0.75, "high": 0.85})
    wide = stated.model_copy(update={"value": 0.7, "low": 0.5, "high": 0.9})  # holds 0.6, but not the other way
    outcomes = [verification.compare_measurements(stated, now) for now in (stated, near, far, wide, None)]
    assert outcomes == ["identical", "within the intervals", "different", "different", "not measured"]
    assert verification.draw_trials(document, 0.2, 0) == [ATTACK]


def test_redaction_leaves_no_path_and_no_name(document, monkeypatch):
    monkeypatch.setenv("LOGNAME", "strange-user")
    redacted = redact_document(document)
    text = json.dumps(redacted.to_json())
    assert "strange-user" not in text and "/home" not in text
    assert redacted.settings["weights"] == "model.st" and redacted.dataset.reference == "folder:photos"
    assert redacted.measurements == document.measurements and redacted.target.checksum == document.target.checksum
    assert clean_text("see C:\\Users\\anna\\x.pt, or ~/models/w.st and /a/b.c", {}, []) == "see x.pt, or w.st and b.c"
    assert clean_text("simple-cnn parquet:/a/b/photos seed=1", {}, []) == "simple-cnn parquet:photos seed=1"
    for harmless in ("TPR/FPR", "black-box/partial", "https://host/a/b", "1/2", "train/3"):
        assert clean_text(harmless, {}, []) == harmless


def test_cyclonedx_follows_its_schema(document):
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from cyclonedx.validation import make_schemabased_validator

    text = render(document, "cyclonedx").decode()
    assert make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_7).validate_str(text) is None
    metrics = json.loads(text)["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    auc = next(metric for metric in metrics if metric["type"] == f"{ATTACK}.auc")
    assert auc["value"] == "0.6" and auc["confidenceInterval"] == {"lowerBound": "0.55", "upperBound": "0.65"}
    assert auc["slice"] == "Membership inference: loss"
    assert {m["slice"] for m in metrics if m["type"].startswith("target.")} == {"members", "non-members"}


def test_sarif_is_read_by_another_library(document):
    from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

    content = json.loads(render(document, "sarif"))
    log = Sarif.model_validate(content)
    results = content["runs"][0]["results"]
    assert len(log.runs[0].results) == len(FAMILIES) + 1
    assert {r["level"] for r in results if r["kind"] != "fail"} <= {"none"}
    assert [r["ruleId"] for r in results if r["level"] == "error"][-1] == "securitynet/policy"
    assert "strange-user" not in json.dumps(content)


def test_the_model_card_and_the_results_are_read_by_the_hub(document):
    from huggingface_hub import ModelCard, parse_eval_result_entries

    card = ModelCard(render(document, "model-card").decode())
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values[f"{ATTACK}.auc"] == 0.6 and "target.test_accuracy" in values
    assert "| Membership inference | " in card.text and "## Privacy and security" in card.text
    entries = parse_eval_result_entries(yaml.safe_load(render(document, "eval-result")))
    assert {entry.task_id for entry in entries} == {m.name for m in document.measurements if m.value is not None}


def test_atlas_names_a_technique_for_every_family(document):
    layer = json.loads(render(document, "atlas"))
    assert set(TECHNIQUES) == set(FAMILIES)
    assert {t["techniqueID"] for t in layer["techniques"]} >= {
        "AML.T0024.000",
        "AML.T0024.001",
        "AML.T0024.002",
        "AML.T0015",
    }
    scores = {t["techniqueID"]: t.get("score") for t in layer["techniques"]}
    assert scores["AML.T0024.000"] in (33, 66, 100) and scores["AML.T0024.002"] is None  # not assessed is no 0


def test_tables_hold_every_measurement(document):
    names = [m.name for m in document.measurements]
    table = pandas.read_csv(io.BytesIO(render(document, "csv")))
    assert list(table.name) == names and table.loc[0, "value"] == document.measurements[0].value
    frame = pandas.read_parquet(io.BytesIO(render(document, "parquet")))
    assert list(frame.name) == names and frame.value.dtype == "float64" and frame.n.dtype == "int64"
    evil = document.model_copy(update={"dataset": document.dataset.model_copy(update={"reference": "=cmd()"})})
    assert b"'=cmd()" in render(evil, "csv")


def test_formats_have_different_files():
    assert len({form.file for form in FORMATS.values()}) == len(FORMATS)


def test_exports_load_no_torch():
    code = (
        "import sys, importlib\n"
        "from securitynet.results.exports import FORMATS\n"
        "[importlib.import_module(f.location.partition(':')[0]) for f in FORMATS.values()]\n"
        "import securitynet.results.signing, securitynet.results.statement, securitynet.results.redaction\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name, parts",
    [
        ("evasion.fgsm.success@epsilon=0.03", ("evasion.fgsm", "success@epsilon=0.03")),
        ("membership.ml-doctor-black-box@shadow.auc", ("membership.ml-doctor-black-box@shadow", "auc")),
        ("membership.loss.tpr@fpr=0.001", ("membership.loss", "tpr@fpr=0.001")),
        ("attribute.embedding-mlp.slant.gain", ("attribute.embedding-mlp.slant", "gain")),
        ("target.test_accuracy", ("target", "test_accuracy")),
    ],
)
def test_names_are_split_at_the_measure(name, parts):
    assert split_name(name) == parts
