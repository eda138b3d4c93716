"""A folder of results made by anybody: what is ranked, what is marked, and what is skipped and counted."""

from __future__ import annotations

import base64
import json
import os
import shutil

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from securitynet.assessments.comparison import read_result
from securitynet.errors import ConfigurationError
from securitynet.files import add_digest, write_json
from securitynet.results import collection as collecting
from securitynet.results import signing
from securitynet.results.collection import collect_results, fingerprint_folder, read_keys
from securitynet.results.leaderboard import make_boards
from securitynet.results.statement import make_reproduction, make_statement
from stored_results import ATTACK, N, write_result

AUC = f"{ATTACK}.auc"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def keys():
    return {name: Ed25519PrivateKey.generate() for name in ("alice", "bob", "mallory")}


@pytest.fixture(scope="module")
def trusted(keys, tmp_path_factory):
    """A folder with the public keys of Alice and Bob."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob"):
        pem = (
            keys[name]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        (folder / f"{name}.pub").write_bytes(pem)
    return folder


def write(folder, auc, change=lambda document: document, seed=0):
    """A result with an AUC of its own, and its trial files."""
    random = np.random.default_rng(seed)
    is_member = np.arange(N) < N // 2
    write_result(folder, f"{seed:064x}", random.normal(is_member, 1), random.random(N) < 0.9, auc=auc)
    document = change(read_result(folder).document)
    write_json(folder / "result.json", add_digest(document.to_json()))


def sign(folder, key, name="result.intoto.json"):
    stored = read_result(folder)
    envelope = signing.sign_statement(make_statement(stored.document, stored.store), key)
    write_json(folder / name, envelope)
    return envelope


def counter_sign(folder, envelope, key, measurements, name="result.reproduced.intoto.json"):
    payload = base64.b64decode(envelope["payload"])
    write_json(folder / name, signing.sign_statement(make_reproduction(payload, measurements, []), key))


@pytest.fixture(scope="module")
def root(keys, tmp_path_factory):
    """Results of every kind."""
    root = tmp_path_factory.mktemp("results")
    write(root / "good", (0.55, 0.52, 0.58), seed=1)
    counter_sign(root / "good", sign(root / "good", keys["alice"]), keys["bob"], [AUC])
    write(root / "near", (0.57, 0.54, 0.60), seed=2)  # its interval overlaps that of the first
    envelope = sign(root / "near", keys["bob"])
    counter_sign(root / "near", envelope, keys["bob"], [AUC])  # by the signer: does not count
    counter_sign(root / "near", envelope, keys["mallory"], [AUC], "x.intoto.json")
    write(root / "bad", (0.80, 0.75, 0.85), seed=3)
    sign(root / "bad", keys["alice"])
    write(root / "unsigned", (0.50, 0.49, 0.51), seed=4)
    write(root / "foreign", (0.50, 0.49, 0.51), seed=5)
    sign(root / "foreign", keys["mallory"])
    write(root / "forged", (0.80, 0.75, 0.85), seed=6)
    sign(root / "forged", keys["alice"])
    better = read_result(root / "forged").document
    lower = tuple(m.model_copy(update={"value": 0.5, "low": 0.4, "high": 0.6}) if m.name == AUC else m for m in
                  better.measurements)  # fmt: skip
    write_json(root / "forged" / "result.json", add_digest(better.model_copy(update={"measurements": lower}).to_json()))
    write(root / "flipped", (0.5, 0.4, 0.6), seed=7)
    sign(root / "flipped", keys["alice"])
    (record,) = (root / "flipped" / "trials").glob("*/*.json")
    record.write_bytes(record.read_bytes() + b" ")
    write(root / "damaged", (0.5, 0.4, 0.6), seed=8)
    text = (root / "damaged" / "result.json").read_text()
    (root / "damaged" / "result.json").write_text(text.replace("2026-01-01", "2026-02-01"))  # the digest is not renewed
    write(root / "alone", (0.7, 0.65, 0.75), seed=9)
    sign(root / "alone", keys["bob"])
    for name in ("result.json", "exposed.csv"):
        (root / "alone" / name).unlink()
    shutil.rmtree(root / "alone" / "trials")
    return root


@pytest.fixture(scope="module")
def collected(root, trusted):
    return collect_results(root, read_keys(trusted))


def test_each_result_has_the_evidence_that_it_has(collected):
    evidence = {one.folder: (one.evidence, one.signer) for one in collected.results}
    unknown = evidence.pop("foreign")
    assert evidence == {
        "good": ("reproduced", "alice"),
        "near": ("signed", "bob"),
        "bad": ("signed", "alice"),
        "alone": ("signed", "bob"),
        "unsigned": ("unsigned", None),
        "forged": ("changed", "alice"),
        "flipped": ("changed", "alice"),
        "damaged": ("changed", None),
    }
    assert unknown[0] == "unknown key" and len(unknown[1]) == 16
    assert collected.skipped == {}
    by_folder = {one.folder: one for one in collected.results}
    assert by_folder["good"].list_reproducers(AUC) == ["bob"]
    assert by_folder["good"].list_reproducers("target.test_accuracy") == []
    assert "does not count" in " ".join(by_folder["near"].remarks)
    assert "unknown key" in " ".join(by_folder["near"].remarks)
    # What is shown of a forged result is what was signed.
    assert {m.name: m.value for m in by_folder["forged"].document.measurements}[AUC] == 0.8
    assert "measurements" in by_folder["forged"].remarks[0] and "record" in by_folder["flipped"].remarks[0]


def test_ranks_follow_from_intervals_and_signatures(collected):
    (board,) = make_boards(collected)
    assert board.by == AUC and board.columns == ("target.test_accuracy", AUC)
    ranks = {row.result.folder: row.rank for row in board.rows if row.rank}
    assert ranks == {"good": 1, "near": 1, "alone": 3, "bad": 3}
    reasons = {row.result.folder: row.why_not for row in board.rows if row.rank is None}
    assert reasons["unsigned"] == "not signed" and reasons["foreign"] == "signed by an unknown key"
    assert all("changed" in reasons[name] for name in ("forged", "flipped", "damaged"))
    assert [row.result.folder for row in board.rows][:2] == ["good", "near"]
    (other,) = make_boards(collected, "target.test_accuracy")  # higher is better there, and all intervals overlap
    assert {row.rank for row in other.rows if row.rank} == {1}


def test_without_keys_unsigned_results_are_ranked_and_changed_ones_are_not(root):
    (board,) = make_boards(collect_results(root, {}))
    ranks = {row.result.folder: row.rank for row in board.rows}
    assert ranks["unsigned"] == 1 and ranks["foreign"] == 1
    assert ranks["forged"] is ranks["flipped"] is ranks["damaged"] is None


def test_hostile_files_are_skipped_and_counted(root, trusted, keys, tmp_path, monkeypatch):
    folder = tmp_path / "all"
    shutil.copytree(root / "good", folder / "good")
    shutil.copytree(root / "good", folder / "again")
    for name, content in {"garbage": b"\0\xff{", "list": b"[1]", "deep": b"[" * 100_000, "other": b'{"a": 1}'}.items():
        (folder / name).mkdir()
        (folder / name / "result.json").write_bytes(content)
        (folder / name / "y.intoto.json").write_bytes(content)
    (folder / "huge").mkdir()
    with (folder / "huge" / "result.json").open("wb") as stream:
        stream.truncate(collecting.LARGEST_RESULT + 1)
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "result.json")
    (folder / "link").symlink_to(root / "bad")
    (folder / "linked").mkdir()
    (folder / "linked" / "result.json").symlink_to(root / "bad" / "result.json")
    statement = signing.open_envelope(json.loads((root / "good" / "result.intoto.json").read_bytes()))[0]
    traversing = {**statement["predicate"], "trials": {"../x": {}}}
    odd = {"predicate": {}}, {"predicate": traversing}, {"predicateType": "https://example.org/other"}
    for number, change in enumerate(odd):
        write_json(folder / f"odd{number}.intoto.json", signing.sign_statement({**statement, **change}, keys["alice"]))
    unsigned = signing.sign_statement(statement, keys["alice"]) | {"signatures": []}
    write_json(folder / "none" / "result.intoto.json", unsigned)
    found = collect_results(folder, read_keys(trusted))
    assert [one.evidence for one in found.results] == ["reproduced"]  # not the copy without a signature
    assert found.skipped == {
        "not a result": 4,
        "not a signed statement": 4,
        "larger than 32.0 MiB": 1,
        "a pipe, a socket or a device": 1,
        "a symbolic link": 2,
        "another copy of a signed result": 2,
        "a statement that holds no result": 3,
    }
    monkeypatch.setattr(collecting, "MOST_FILES", 5)
    assert any(reason.startswith("beyond") for reason in collect_results(folder, {}).skipped)


def test_trial_files_that_lead_elsewhere_are_not_read(root, trusted, tmp_path):
    for name in ("good", "unsigned"):
        shutil.copytree(root / name, tmp_path / name)
        (record,) = (tmp_path / name / "trials").glob("*/*.json")
        record.unlink()
        os.mkfifo(record)  # would wait for ever
    found = collect_results(tmp_path, read_keys(trusted))
    assert {one.folder: one.evidence for one in found.results} == {"good": "changed", "unsigned": "changed"}
    assert all("cannot be read" in one.remarks[0] for one in found.results)
    traversing = read_result(root / "unsigned").document
    (trial,) = traversing.trials
    away = traversing.model_copy(update={"trials": (trial.model_copy(update={"id": "../../x"}),)})
    shutil.rmtree(tmp_path / "good")
    write_json(tmp_path / "unsigned" / "result.json", add_digest(away.to_json()))
    (one,) = collect_results(tmp_path, {}).results
    assert one.evidence == "changed" and "ids" in one.remarks[0]


def test_doubtful_models_have_no_rank(root, tmp_path):
    from securitynet.records import Check
    from securitynet.results.document import BlindFacts, MembershipControlFacts

    differ = MembershipControlFacts(blind=BlindFacts(members=9, non_members=9, differ=True))
    failed = Check(what="accuracy", said="0.9", found="0.1", agrees=False)
    write(tmp_path / "a", (0.5, 0.4, 0.6), lambda d: d.model_copy(update={"controls": differ}))
    write(tmp_path / "b", (0.5, 0.4, 0.6), lambda d: d.model_copy(
        update={"target": d.target.model_copy(update={"checks": (failed,)})}))  # fmt: skip
    (board,) = make_boards(collect_results(tmp_path, {}))
    assert [(row.rank, row.why_not) for row in board.rows] == [
        (None, "members and non-members differ even without the model"),
        (None, "a check of the model failed"),
    ]
    (accuracy,) = make_boards(collect_results(tmp_path, {}), "target.test_accuracy")
    assert [row.rank for row in accuracy.rows] == [1, None]  # the controls are about membership alone


def test_a_change_in_the_folder_is_noticed(tmp_path):
    write(tmp_path / "a", (0.5, 0.4, 0.6))
    before = fingerprint_folder(tmp_path)
    assert fingerprint_folder(tmp_path) == before
    (record,) = (tmp_path / "a" / "trials").glob("*/*.json")
    record.write_bytes(record.read_bytes() + b" ")
    assert fingerprint_folder(tmp_path) != before


def test_folders_of_keys_that_are_none_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no folder"):
        read_keys(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="no public key"):
        read_keys(tmp_path)
    (tmp_path / "x.pub").write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"x\.pub"):
        read_keys(tmp_path)
