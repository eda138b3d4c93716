"""`securitynet assess` as a user runs it: outputs, exit codes, one clear message for each kind of bad input."""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from securitynet.cli.main import main
from securitynet.models.architectures.factory import build
from securitynet.results.document import SCHEMA_FILE, read_document, write_result_schema


@pytest.fixture
def invoke(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A briefly trained network of digits, written by the trainer."""
    from securitynet.models.store.train_target import train_model
    from securitynet.models.training.config import TrainConfig

    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    train_model(TrainConfig(architecture="simple-cnn", dataset="digits", out=path, epochs=15, learning_rate=0.05))
    return path


def test_assess_writes_report_result_and_trials(invoke, weights, tmp_path):
    out = tmp_path / "out"
    arguments = ("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits", "--out", out)
    code, stdout, _ = invoke(*arguments)
    assert code == 0 and "Membership inference" in stdout and str(out / "report.html") in stdout
    assert "what to do next" in stdout and "securitynet assess arch:simple-cnn" in stdout
    assert "membership.modified-entropy" not in stdout and "membership.modified-entropy" in invoke(*arguments, "-v")[1]
    content = json.loads((out / "result.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))
    assert content["schema"] == "securitynet/result/1"
    assert {"name", "value", "low", "high", "level", "n", "direction"} <= set(content["measurements"][0])
    names = {m["name"] for m in content["measurements"]}
    assert {"target.train_accuracy", "target.test_accuracy", "membership.modified-entropy.tpr@fpr=0.1"} <= names
    for trial in content["trials"]:
        assert (out / "trials" / trial["id"][:2] / f"{trial['id']}.json").is_file()
    assert "<html" in (out / "report.html").read_text()
    assert read_document(out / "result.json").dataset.membership == "known"
    code, stdout, _ = invoke(*arguments, "--json")
    again = json.loads(stdout)
    assert code == 0 and again["measurements"] == content["measurements"]
    assert again["queries"]["sent"] == 0 and all(trial["reused"] for trial in again["trials"])
    assert {**content["queries"], "sent": 0} == again["queries"], "the count is the same, whatever was cached"


def test_published_schema_is_that_of_the_records():
    assert SCHEMA_FILE.read_text() == write_result_schema()


def test_nothing_is_written_into_the_current_folder(invoke, weights, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, stdout, _ = invoke("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits")
    assert code == 0 and list(Path().iterdir()) == []
    assert Path(stdout.rpartition("Report: ")[2].strip()).is_file()


def test_policy_decides_the_exit_code(invoke, weights, tmp_path):
    policy = tmp_path / "policy.toml"
    arguments = ("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits", "--policy", policy)
    policy.write_text('"target.test_accuracy" = { min = 0.1 }')
    assert invoke(*arguments, "--out", tmp_path / "o")[0] == 0
    policy.write_text('"target.test_accuracy" = { min = 1.1 }\n"membership.other.auc" = { max = 1 }')
    code, stdout, _ = invoke(*arguments, "--out", tmp_path / "o")
    assert code == 3 and "is below 1.1" in stdout and "not measured" in stdout
    assert json.loads((tmp_path / "o" / "result.json").read_text())["policy"]["met"] is False
    policy.write_text("nonsense")
    code, _, stderr = invoke(*arguments, "--out", tmp_path / "unused")
    assert code == 1 and "TOML" in stderr and not (tmp_path / "unused").exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def checkpoint(tmp_path, name, **changes):
    network = build("cifar-resnet20", changes.pop("classes", 10), channels=changes.pop("channels", 3))
    state = network.state_dict()
    state.update(changes)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / name)
    return tmp_path / name


@pytest.fixture
def colour_folder(tmp_path):
    """Ten classes of small colour images, as a folder."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in range(10):
            folder = tmp_path / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def one_clear_message(result, *words):
    code, stdout, stderr = result
    assert code == 1, (stdout, stderr)
    assert "Traceback" not in stderr
    assert stderr.count("error:") == 1
    for word in words:
        assert word.lower() in " ".join(stderr.lower().split()), stderr


def test_bad_model_files(invoke, tmp_path, colour_folder):
    def assess(weights, model="arch:cifar-resnet20"):
        out = tmp_path / "out"
        return invoke("assess", model, "--weights", weights, "--dataset", f"folder:{colour_folder}", "--out", out)

    trap, evil = tmp_path / "executed", tmp_path / "evil.pt"
    torch.save({"state_dict": Bomb(trap)}, evil)
    one_clear_message(assess(evil), "code")
    evil.write_bytes(pickle.dumps({"state_dict": Bomb(trap)}))
    one_clear_message(assess(evil), "code")
    assert not trap.exists()

    good = checkpoint(tmp_path, "good.safetensors")
    assert assess(good)[0] == 0
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(good.read_bytes()[:5000])
    one_clear_message(assess(truncated), "truncated")
    torch.save(build("cifar-resnet20", 10).state_dict(), tmp_path / "whole.pt")
    half = tmp_path / "half.pt"
    half.write_bytes((tmp_path / "whole.pt").read_bytes()[:30000])
    one_clear_message(assess(half), "half.pt")
    one_clear_message(assess(good, "arch:vgg11"), "missing", "cifar-resnet20")
    one_clear_message(assess(checkpoint(tmp_path, "7.safetensors", classes=7)), "7 classes", "10")
    nan = checkpoint(tmp_path, "nan.safetensors", **{"linear.bias": torch.full((10,), float("nan"))})
    one_clear_message(assess(nan), "nan")
    huge = checkpoint(tmp_path, "huge.safetensors", **{"linear.weight": torch.full((10, 64), 3e38)})
    one_clear_message(assess(huge), "finite")
    one_clear_message(assess(tmp_path / "absent.pt"), "absent.pt")
    one_clear_message(assess(good, "arch:cifar-resnet2"), "did you mean")
    assert not any(tmp_path.glob("out/result.json.*"))


def test_bad_images(invoke, tmp_path, colour_folder):
    good = checkpoint(tmp_path, "good.safetensors")

    def assess(dataset):
        return invoke("assess", "arch:cifar-resnet20", "--weights", good, "--dataset", dataset, "--out", tmp_path / "o")

    one_clear_message(assess("digits"), "--channels 3")
    (tmp_path / "empty").mkdir()
    one_clear_message(assess(f"folder:{tmp_path / 'empty'}"), "no folders of classes")
    victim = next(colour_folder.glob("train/class3/*.png"))
    victim.write_bytes(victim.read_bytes()[:60])
    one_clear_message(assess(f"folder:{colour_folder}"), victim.name)
    one_clear_message(assess("cifra10"), "did you mean")
    one_clear_message(assess(f"parquet:{tmp_path / 'nowhere'}"), "nowhere")


def test_what_cannot_work_is_told_before_anything_is_loaded(invoke, tmp_path):
    def assess(*options):
        return invoke("assess", "arch:simple-cnn", "--weights", tmp_path / "absent.pt", "--dataset", "digits", *options)

    (tmp_path / "file").write_text("")
    one_clear_message(assess("--out", tmp_path / "file" / "sub"), "is a file, but a folder is needed")
    one_clear_message(assess("--attacks", "corectness"), "did you mean")
    one_clear_message(assess("--policy", tmp_path / "absent.toml"), "absent.toml")
    one_clear_message(assess("--fprs", "0.1,2"), "--fprs", "less than 1")
    (tmp_path / "file").write_text("")
    one_clear_message(
        invoke("train", "simple-cnn", "--dataset", "digits", "--out", tmp_path / "file" / "m.safetensors"), "folder"
    )


def test_an_error_of_the_file_system_has_one_clear_message(invoke, weights, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "trials").write_text("")  # a file where the trials' folder should be
    arguments = ("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits")
    one_clear_message(invoke(*arguments, "--out", out), "trials")


def test_paths_are_printed_as_they_are(invoke, weights, tmp_path):
    out = tmp_path / "ü [b] out"
    code, stdout, _ = invoke("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits", "--out", out)
    assert code == 0 and f"Report: {out / 'report.html'}" in stdout


def test_usage_errors_have_code_2(invoke):
    assert invoke("assess", "--no-such-option")[0] == 2
    assert invoke("asess")[0] == 2


def test_list_names_everything(invoke):
    assert "membership.correctness" in invoke("list", "attacks")[1]
    names = {entry["name"] for entry in json.loads(invoke("list", "architectures", "--json")[1])}
    assert {"cifar-resnet20", "simple-cnn", "wrn-28-10"} <= names
    assert "cifar10" in invoke("list", "datasets")[1]
    assert invoke("list", "detectors")[0] == 0


def test_every_command_and_option_is_documented():
    import typer.main

    from securitynet.cli.main import app

    group = typer.main.get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        assert (command.help or "").strip(), name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_loses_nothing(run_cli, tmp_path, weights, kills):
    out, cache = tmp_path / "out", tmp_path / "cache"
    arguments = ["assess", "arch:simple-cnn", "--weights", str(weights), "--dataset", "digits"]
    if kills == 1:
        arguments += ["--detectors", "none"]
    expected = json.loads(run_cli(*arguments, "--out", tmp_path / "calm", "--cache", tmp_path / "c", "--json").stdout)
    dice = random.Random(kills)
    for _ in range(kills):
        run_cli(*arguments, "--out", out, "--cache", cache, kill_after=dice.uniform(0.3, 4.0))
    final = run_cli(*arguments, "--out", out, "--cache", cache, "--json")
    assert final.returncode == 0, final.stderr
    assert json.loads(final.stdout)["measurements"] == expected["measurements"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    "model, file, expected",
    [
        ("cifar-resnet20", "resnet20-12fca82f.th", (0.8604, 0.8103, 0.5250, 0.5232)),
        ("cifar-resnet32", "resnet32-d509ac18.th", (0.8811, 0.8256, 0.5277, 0.5286)),
    ],
)
def test_public_checkpoints_on_all_images(invoke, shared_data, tmp_path, model, file, expected):
    code, stdout, _ = invoke(
        *("assess", f"arch:{model}", "--weights", shared_data / "cifar10-resnets" / file, "--normalize", "imagenet"),
        *("--dataset", f"parquet:{shared_data / 'cifar10-jpeg'}", "--out", tmp_path / "out", "--json"),
    )
    assert code == 0
    values = {m["name"]: m["value"] for m in json.loads(stdout)["measurements"]}
    names = ("target.train_accuracy", "target.test_accuracy", "membership.correctness.auc")
    measured = [values[name] for name in (*names, "membership.modified-entropy.auc")]
    assert measured == pytest.approx(expected, abs=0.002)


def test_what_is_skipped_is_said_on_the_terminal_too(invoke, weights, tmp_path):
    """A defense and attacks that cannot meet: stated, not silent."""
    arguments = ("assess", "arch:simple-cnn", "--weights", weights, "--dataset", "digits", "--out", tmp_path / "out")
    attacks = ("--detectors", "none", "--attacks", "loss,ml-doctor-white-box,correctness")
    code, stdout, _ = invoke(*arguments, *attacks, "--defense", "label-only")
    text = " ".join(stdout.split())
    assert code == 0 and "Membership inference" in text
    assert "skipped membership.loss: This target reveals labels only" in text
    assert "skipped membership.ml-doctor-white-box: it needs white-box access" in text


def write_photos(root: Path, count: int = 8) -> list[str]:
    """Two classes in two parts, of parts' names as people give them; the files below the root."""
    files = []
    for part in ("Training", "test_set"):
        for name in ("cat", "dog"):
            for k in range(count):
                file = f"{part}/{name}/{k:02d}.png"
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(len(files)).integers(0, 256, (28, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / file)
                files.append(file)
    return files


def test_members_by_a_list_and_the_files_in_the_results(tmp_path, invoke):
    files = write_photos(tmp_path / "photos")
    members = [file for number, file in enumerate(files) if number % 3]
    (tmp_path / "members.csv").write_text("file\n" + "\n".join(members) + "\n", encoding="utf-16")
    module = build("simple-cnn", 2, 3, 28)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    code, out, err = invoke(
        "assess", "arch:simple-cnn", "--weights", tmp_path / "w.safetensors", "--dataset", f"folder:{tmp_path}/photos",
        "--members", tmp_path / "members.csv", "--attacks", "membership.loss,membership.confidence", "--detectors",
        "none", "--normalize", "none", "--out", tmp_path / "out", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0, err
    assert f"{len(members)} members, {len(files) - len(members)} non-members" in out
    assert "known, from the list that was given" in out
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["dataset"]["members_stated"]
    assert any("Membership as stated" in note for note in result["dataset"]["notes"])
    assert {exposed["trial"] for exposed in result["exposed"]} == {"membership.loss", "membership.confidence"}
    named = {member["file"] for exposed in result["exposed"] for member in exposed["members"]}
    assert named <= set(members)
    rows = (tmp_path / "out/exposed.csv").read_text().splitlines()
    assert len(rows) == 1 + len(files)
    page = (tmp_path / "out/report.html").read_text()
    assert "the list that was given with it" in page and result["exposed"][0]["members"][0]["file"] in page
    assert str(tmp_path) not in (tmp_path / "out/exposed.csv").read_text()


def test_members_that_contradict_the_split(tmp_path, invoke):
    code, _, err = invoke(
        "assess", "arch:simple-cnn", "--dataset", "digits", "--members", "list.csv", "--split", "four-way"
    )
    assert code == 1 and "--split four-way draws them at random" in err


def test_members_as_a_mask_from_python(tmp_path):
    import securitynet

    write_photos(tmp_path / "photos")
    dataset = securitynet.load_dataset(f"folder:{tmp_path / 'photos'}", cache=tmp_path / "cache")
    module = build("simple-cnn", 2, 3, 28)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    mask = torch.arange(len(dataset)) % 2 == 0
    outcome = securitynet.assess(
        "arch:simple-cnn", dataset, weights=tmp_path / "w.safetensors", members=mask, attacks=["membership.loss"],
        detectors=[], normalize="none", out=tmp_path / "out", cache=tmp_path / "cache",
    )  # fmt: skip
    assert outcome.assessment.assessed_target.splits.members.tolist() == np.flatnonzero(mask.numpy()).tolist()
    assert outcome.document.dataset.membership == "known"
    assert "members" not in outcome.document.settings
