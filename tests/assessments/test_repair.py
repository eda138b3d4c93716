"""`securitynet repair`: from a weights file to a repaired one with its record."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from securitynet.assessments.repair import repair_model
from securitynet.assessments.repair_config import RepairConfig
from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.blended import Blended
from securitynet.backdoors.several_targets import SeveralTargets
from securitynet.backdoors.warp import Warp
from securitynet.cli.main import app
from securitynet.cli.repair import describe_repair
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.loading.load import load_target
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.repair_record import RepairOutcome
from securitynet.models.store.train_target import train_target

TRAINING = {"epochs": 10, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "cosine", "weight_decay": 0}
DEFENSE = ("fine-pruning",)


@pytest.fixture(scope="module")
def models(tmp_path_factory, digits):
    """Folder with a backdoored model and a clean one, trained alike."""
    folder = tmp_path_factory.mktemp("repair")
    for name, backdoor in (("backdoored", Badnets(target=1, rate=0.2, margin=0)), ("clean", None)):
        out = folder / f"{name}.safetensors"
        train_target("simple-cnn", digits, out=out, device="cpu", backdoor=backdoor, seed=1, **TRAINING)
    return folder


def config(models, name, **changes):
    values = {"model": "arch:simple-cnn", "weights": models / f"{name}.safetensors", "dataset": "digits"}
    values |= {"device": "cpu", "defense": DEFENSE, "scan": False, "out": models / f"{name}-out.safetensors"}
    return RepairConfig(**{**values, **changes})


STRONG = {
    "patch": Badnets(target=1, rate=0.2, margin=0),
    "blended": Blended(target=1, rate=0.2),
    "several-targets": SeveralTargets(target=1, rate=0.3, margin=0),
    "warp": Warp(target=1, strength=1, rate=0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", STRONG)
def test_the_default_repair_removes_strong_backdoors(kind, seed, digits, tmp_path):
    weights, out = tmp_path / "backdoored.safetensors", tmp_path / "repaired.safetensors"
    settings = {**TRAINING, "epochs": 25}
    train_target("simple-cnn", digits, out=weights, device="cpu", backdoor=STRONG[kind], seed=seed, **settings)
    options = ["--weights", weights, "--dataset", "digits", "--out", out, "--device", "cpu", "--json"]
    options += ["--configure", "neural-cleanse.restarts=1"]
    outcome = CliRunner().invoke(app, ["repair", "arch:simple-cnn", *map(str, options)])
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    before, after = document["before"], document["after"]
    assert before["success"] > 0.8 and after["success"] < 0.1
    assert after["accuracy"] > before["accuracy"] - 0.03
    assert document["defenses"] == ["fine-pruning", "unlearning"] and document["images"] == 450  # as many as members


def test_the_record_of_a_repaired_model_says_how(models, tmp_path):
    out = tmp_path / "repaired.safetensors"
    options = ["--weights", models / "backdoored.safetensors", "--dataset", "digits", "--out", out, "--device", "cpu"]
    options += ["--defense", "fine-pruning", "--no-scan", "--configure", "fine-pruning.epochs=12", "--json"]
    outcome = CliRunner().invoke(app, ["repair", "arch:simple-cnn", *map(str, options)])
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    before, after = document["before"], document["after"]
    assert before["success"] > 0.8 and after["success"] < before["success"]
    assert after["accuracy"] > before["accuracy"] - 0.03
    assert document["settings"][0]["epochs"] == 12 and document["non_members"] == 0
    record, source = read_target_record(out), read_target_record(models / "backdoored.safetensors")
    assert record.repair.after.success == after["success"] == record.backdoor.success
    assert record.key != source.key and "repair" not in source.decisive() and "repair" not in source.document()
    assert load_target("arch:simple-cnn", weights=out).preprocessing == source.preprocessing


def test_a_clean_model_keeps_its_accuracy_and_is_not_called_repaired(models):
    result = repair_model(config(models, "clean"))
    assert result.record.after.accuracy > result.record.before.accuracy - 0.03
    assert result.record.before.success is None
    (sentence,) = describe_repair(result.record.before, result.record.after)
    assert sentence.startswith("No trigger of this model is known")


def test_weights_without_a_record_are_repaired_too(models, tmp_path, digits):
    copied = tmp_path / "public.safetensors"
    import safetensors.torch

    safetensors.torch.save_file(safetensors.torch.load_file(models / "clean.safetensors"), copied)
    result = repair_model(config(models, "clean", weights=copied, out=None, normalize="none"))
    assert result.weights == tmp_path / "public-repaired.safetensors"
    document = json.loads(result.weights.with_suffix(".json").read_text(encoding="utf-8"))
    assert document["format"] == "securitynet-repaired-model" and document["repair"]["defenses"] == ["fine-pruning"]
    assert load_target("arch:simple-cnn", weights=result.weights, dataset=digits).num_classes == 10


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"defense": ("dropout",)}, "does not repair"),
        ({"defense": ("unlearning",)}, "needs the triggers"),
        ({"configure": ("anp.steps=3",)}, "not in use"),
        ({"configure": ("fine-pruning.steps=3",)}, "fine-pruning"),
        ({"configure": ("neural-cleanse.depth=3",), "scan": True}, "no setting depth"),
        ({"dataset": None}, "Clean images"),
        ({"model": "onnx:some.onnx"}, "outputs only"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(models, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        repair_model(config(models, "clean", **changes))


def test_no_file_is_replaced_by_surprise(models):
    with pytest.raises(ConfigurationError, match="file to repair"):
        repair_model(config(models, "clean", out=models / "clean.safetensors", overwrite=True))
    with pytest.raises(ConfigurationError, match="exists already"):
        repair_model(config(models, "clean", out=models / "backdoored.safetensors"))
    with pytest.raises(ModelError, match="safetensors"):
        repair_model(config(models, "clean", out=models / "x.pt"))


@pytest.mark.parametrize(
    "before, after, lost, words",
    [(0.9, 0.02, 0.0, "no longer works"), (0.9, 0.5, 0.0, "STILL WORKS"), (0.05, 0.0, 0.0, "shows nothing"),
     (0.9, 0.02, 0.1, "cost 10.0% of accuracy")],
)  # fmt: skip
def test_the_verdict_says_what_was_measured(before, after, lost, words):
    first = RepairOutcome(accuracy=0.9, records=100, success=before, tried=90)
    second = RepairOutcome(accuracy=0.9 - lost, records=100, success=after, tried=90)
    assert words in " ".join(describe_repair(first, second))
