"""A network of one's own from the command line: trained, assessed, and imitated with itself."""

import json

import pytest
from typer.testing import CliRunner

from securitynet.cli.main import app

NET = """
from torch import nn

def make(num_classes, channels=1):
    return nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * channels, num_classes))
"""


def run(*arguments, code=0):
    outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert outcome.exit_code == code, outcome.output
    return outcome


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(reference, weights) of a network that the command line trained."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(NET)
    reference, weights = f"python:{folder / 'net.py'}:make", folder / "model.safetensors"
    run("train", reference, "--dataset", "digits", "--limit", 300, "--epochs", 2, "--out", weights)
    return reference, weights


def assess(trained, tmp_path, *options):
    reference, weights = trained
    shared = ["--weights", weights, "--dataset", "digits", "--limit", 300, "--detectors", "none", "--cache", tmp_path]
    run("assess", reference, *shared, "--out", tmp_path / "report", *options)
    return json.loads((tmp_path / "report" / "result.json").read_text())


def architectures(cache):
    return {json.loads(path.read_text())["architecture"] for path in cache.glob("shadows/*/weights.json")}


@pytest.mark.parametrize("stated", [None, "simple-cnn"])
def test_shadow_models_have_the_architecture_of_the_target_or_the_stated_one(trained, tmp_path, stated):
    options = () if stated is None else ("--architecture", stated)
    result = assess(trained, tmp_path, "--attacks", "lira", "--configure", "lira.shadows.count=4", *options)
    assert architectures(tmp_path) == {stated or "python:net.py:make"}
    assert {trial["status"] for trial in result["trials"]} == {"ok"}


def test_reference_models_train_nothing_and_are_named(trained, tmp_path):
    other = tmp_path / "other.safetensors"
    run("train", "simple-cnn", "--dataset", "digits", "--limit", 300, "--epochs", 2, "--split-seed", 1, "--out", other)
    options = ("--attacks", "rmia,reference-calibration", "--reference-models", f"arch:simple-cnn={other}")
    result = assess(trained, tmp_path, *options)
    assert architectures(tmp_path) == set() and {trial["status"] for trial in result["trials"]} == {"ok"}
    auc = next(value for value in result["measurements"] if value["name"] == "membership.rmia.auc")
    assert "not known which records they were trained on" in auc["note"]


def test_reference_models_without_an_attack_that_takes_them_are_refused(trained, tmp_path):
    reference, weights = trained
    outcome = run(
        *("assess", reference, "--weights", weights, "--dataset", "digits", "--limit", 300, "--attacks", "loss"),
        *("--detectors", "none", "--reference-models", "timm:resnet18", "--out", tmp_path / "report"),
        code=1,
    )
    assert "--reference-models is for attacks" in str(outcome.exception)


def test_defenses_surrogates_and_clean_models_have_the_architecture_of_the_target(trained, tmp_path):
    settings = ("ml-doctor-surrogate.recipe={epochs=1}", "neural-cleanse.reference=2", "neural-cleanse.images=32")
    settings += ("neural-cleanse.epochs=2", "neural-cleanse.restarts=1")
    result = assess(
        *(trained, tmp_path, "--attacks", "loss,ml-doctor-surrogate", "--detectors", "neural-cleanse"),
        *("--try-defenses", "--defenses", "label-smoothing", "--defense-trainings", 0),
        *("--configure", ",".join(settings)),
    )
    surrogates = ("stealing.ml-doctor-surrogate@partial", "stealing.ml-doctor-surrogate@shadow")
    statuses = {trial["name"]: trial["status"] for trial in result["trials"]}
    assert statuses == dict.fromkeys(("membership.loss", *surrogates, "backdoor.neural-cleanse"), "ok")
    for kind in ("surrogates", "shadows", "defended"):
        records = [json.loads(path.read_text()) for path in tmp_path.glob(f"{kind}/*/*.json")]
        assert {record["architecture"] for record in records} == {"python:net.py:make"}, kind
    assert {outcome["name"] for outcome in result["remedies"]["tried"]} == {"label-smoothing"}  # at several strengths
    assert result["remedies"]["tried"][0]["auc"] is not None
