"""Two versions of a model through the command line: a float network, its int8 form, and its fine-tuned self."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from securitynet.cli.main import main

pytest.importorskip("onnxruntime")
EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_versions.py"


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """The three networks, small, with the lists of who is a member."""
    folder = tmp_path_factory.mktemp("versions")
    runpy.run_path(str(EXAMPLE))["write_versions"](folder, records=200, epochs=6, more=20)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, versions):
    """Run the command line in this process: (exit code, stdout)."""

    def call(*arguments):
        monkeypatch.chdir(versions)
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().out

    return call


def test_int8_and_fine_tuning_against_the_float_network(run, versions):
    options = ["--dataset", "digits", "--normalize", "none", "--attacks", "loss", "--detectors", "none", "--members",
               "members.csv", "--non-members", "non-members.csv"]  # fmt: skip
    assert run("assess", "onnx:float.onnx", *options, "--out", "float")[0] == 0
    (versions / "policy.toml").write_text('"membership.*.auc" = { rise = 0.02 }\n')
    policy = ("--policy", "policy.toml")
    code, printed = run("assess", "onnx:int8.onnx", *options, "--against", "float", *policy, "--out", "int8")
    assert code == 0 and " against " in printed and "The policy is met" in printed
    comparison = json.loads((versions / "int8" / "result.json").read_text())["comparison"]
    differences = {d["name"]: d for d in comparison["differences"]}
    auc, accuracy = differences["membership.loss.auc"], differences["target.test_accuracy"]
    assert auc["paired"] and accuracy["paired"]
    # Quantisation hardly changes the scores, which shows only where they are paired: each AUC alone is less certain.
    result = json.loads((versions / "int8" / "result.json").read_text())
    (own,) = (m for m in result["measurements"] if m["name"] == "membership.loss.auc")
    assert abs(auc["difference"]["value"]) < 0.02
    assert auc["difference"]["high"] - auc["difference"]["low"] < 0.8 * (own["high"] - own["low"])
    # Fine-tuning on the members goes on fitting them: the loss tells more.
    code, printed = run("assess", "onnx:tuned.onnx", *options, "--out", "tuned")
    assert code == 0
    code, printed = run("compare", "float", "tuned", "--json", *policy)
    tuned = {d["name"]: d["difference"] for d in json.loads(printed)["differences"]}["target.train_accuracy"]
    assert tuned["low"] > 0
    # The other way round, what rose falls, and the records are the same.
    back = {
        d["name"]: d["difference"] for d in json.loads(run("compare", "tuned", "float", "--json")[1])["differences"]
    }
    assert back["target.train_accuracy"]["value"] == pytest.approx(-tuned["value"])
