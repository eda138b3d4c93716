"""Plug-ins that are one file: registered, used, and refused in a sentence that names them."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from securitynet import datasets
from securitynet.assessments import assess
from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.attacks import ATTACKS
from securitynet.datasets.registry import DATASETS
from securitynet.errors import ConfigurationError
from securitynet.plugins import load_plugin
from securitynet.results.store import TrialStore

GOOD = '''
"""A file of my own."""
from typing import ClassVar
import numpy as np
from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.records import Access, Auxiliary, ThreatModel

class OwnConfidence(ThresholdAttack):
    """My own score: the posterior of the label."""

    threat_models: ClassVar = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),)

    def score(self, signals):
        return signals.posteriors[np.arange(len(signals)), signals.labels].astype(np.float64)

def load_two_squares(request):
    """Two squares."""
    raise NotImplementedError

def _helper(num_classes):
    return None
'''


@pytest.fixture
def forget(monkeypatch):
    """Registries are as they were after the test."""
    for registry in (ATTACKS, DATASETS):
        monkeypatch.setitem(registry.__dict__, "entries", registry.entries)


def write(tmp_path, text, name="own.py"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_an_attack_and_a_dataset_are_registered(forget, tmp_path):
    assert sorted(load_plugin(write(tmp_path, GOOD))) == ["attack membership.own-confidence", "dataset two-squares"]
    assert ATTACKS.entries["membership.own-confidence"].summary == "My own score: the posterior of the label."
    assert ATTACKS.get("own-confidence").__name__ == "OwnConfidence"
    assert load_plugin(tmp_path / "own.py")  # twice is once


@pytest.mark.parametrize("parameters", ["(self, signals, more=1)", "(self, *more, **named)"])
def test_a_method_may_take_more(forget, tmp_path, parameters):
    assert load_plugin(write(tmp_path, GOOD.replace("(self, signals)", parameters), f"more_{abs(hash(parameters))}.py"))


@pytest.mark.slow
def test_its_attack_runs_as_ours_do(forget, tmp_path, run_cli):
    """`assess --plugin` gives the numbers of the attack that it repeats."""
    weights = tmp_path / "model.safetensors"
    trained = run_cli("train", "simple-cnn", "--dataset", "digits", "--limit", 64, "--epochs", 2, "--out", weights)
    assert trained.returncode == 0, trained.stderr
    finished = run_cli(
        "assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits", "--limit", "64", "--json",
        "--plugin", write(tmp_path, GOOD), "--attacks", "own-confidence,loss", "--detectors", "none",
        "--out", tmp_path / "out", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    values = {m["name"]: m["value"] for m in json.loads(finished.stdout)["measurements"]}
    assert values["membership.own-confidence.auc"] == pytest.approx(values["membership.loss.auc"], abs=0.01)


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = 1 / 0", "line 1: ZeroDivisionError"),
        ("def broken(:", "line 1: SyntaxError"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit"),
        ("x = 1", "defines no attack"),
        (
            GOOD.replace("def score(self, signals)", "def score(self)"),
            "score takes (self), and must take (self, signals)",
        ),
        (GOOD.replace("(self, signals)", "(self, signals, more)"), "takes (self, signals, more), and must"),
        (GOOD.replace("OwnConfidence", "Loss"), "There is attack membership.loss already"),
        (GOOD.replace("def score(", "def scored("), "OwnConfidence lacks score"),
        (GOOD.replace("threat_models: ClassVar", "others: ClassVar"), "OwnConfidence.threat_models must be a tuple"),
        (GOOD.replace("= (ThreatModel", "= [ThreatModel").replace("PARTIAL),)", "PARTIAL)]"), "must be a tuple"),
        ("def load_thing(a, b):\n    pass", "load_thing must take one argument"),
        ("def net(num_classes, width):\n    pass", "must take (num_classes, channels, image_size)"),
        (
            "from securitynet.detectors.base import Detector\nclass Mine(Detector):\n    def run(self, it): pass",
            "Mine.run takes (self, it)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_file(forget, tmp_path, text, words):
    with pytest.raises(ConfigurationError) as error:
        load_plugin(write(tmp_path, text, f"plug_{abs(hash(text))}.py"))
    assert words in error.value.message and "plug_" in error.value.message


def test_a_base_class_of_its_own_may_be_unfinished(forget, tmp_path):
    text = GOOD.replace("def score(", "def scored(") + (
        "class Finished(OwnConfidence):\n    def score(self, signals):\n        return self.scored(signals)\n"
    )
    assert "attack membership.finished" in load_plugin(write(tmp_path, text, "unfinished.py"))


@pytest.mark.parametrize(
    "body, words", [("return 3", "returns int, and must return a Source"), ("raise OSError('disk')", "OSError: disk")]
)
def test_what_a_dataset_does_wrong_is_said_with_the_name_of_the_file(forget, tmp_path, body, words):
    name = f"data_{abs(hash(body))}"
    load_plugin(write(tmp_path, f"def load_{name}(request):\n    {body}\n", f"{name}.py"))
    with pytest.raises(ConfigurationError, match=r"load_.* of the plug-in data_") as error:
        datasets.load(name.replace("_", "-"))
    assert words in error.value.message


@pytest.mark.parametrize(
    "body, words",
    [
        ("return None", "no array of 60 scores, one for each record, but NoneType"),
        ("return np.zeros(3)", r"but \(3,\) float64"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_an_attack_that_does_wrong_fails_alone(forget, tmp_path, overfitted, body, words):
    """One trial fails with the reason; the process, and other trials, go on."""
    target, splits, dataset = overfitted
    name = f"wrong_{abs(hash(body))}.py"
    good = GOOD.split("    def score")[0]
    load_plugin(write(tmp_path, f"{good}    def score(self, signals):\n        {body}\n", name))
    members, non_members = splits.members[:30], splits.non_members[:30]
    few = dataclasses.replace(
        splits, members=members, non_members=non_members, known_members=members[:9], known_non_members=non_members[:9]
    )
    config = AssessConfig(
        model="arch:simple-cnn", dataset="digits", attacks=("own-confidence",), detectors=("none",), cache=tmp_path
    )
    found = assess.run_assessment(config, AssessedTarget(target, dataset, few, 0, "known"), TrialStore(tmp_path))
    (trial,) = found.trials
    assert trial.result.status == "failed" and re.search(words, trial.result.reason)


def test_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="There is no plug-in"):
        load_plugin(tmp_path / "absent.py")
