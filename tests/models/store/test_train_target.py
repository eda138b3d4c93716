"""What training leaves behind: weights, and all that is known about them."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from securitynet.datasets import load, splits
from securitynet.errors import ConfigurationError, ModelError, SplitError, UnknownName
from securitynet.files import add_digest
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_model, train_target
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access

DIGITS = load("digits")


def config(out, **changes):
    settings = {"architecture": "simple-cnn", "dataset": "digits", "epochs": 2, "device": "cpu", "out": out}
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model trained for two epochs: its weights file and its facts."""
    return train_model(config(tmp_path_factory.mktemp("model") / "m.safetensors"))


def copy_of(made, folder):
    path = folder / "copy.safetensors"
    path.write_bytes(made[0].read_bytes())
    path.with_suffix(".json").write_bytes(made[0].with_suffix(".json").read_bytes())
    return path


def test_train_target_is_accurate_and_records_its_overfitting(tmp_path):
    out = tmp_path / "model.safetensors"
    target = train_target("simple-cnn", DIGITS, epochs=30, out=out, device="cpu")
    parts = splits.four_way(DIGITS)
    shares = [
        float(np.mean(target.labels(DIGITS.batch(indices)).numpy() == DIGITS.labels[indices]))
        for indices in (parts.members, parts.non_members)
    ]
    assert shares[1] > 0.9
    trained = read_target_record(out)
    assert [trained.train_accuracy, trained.test_accuracy] == pytest.approx(shares)
    assert trained.overfitting == pytest.approx(shares[0] - shares[1])
    assert trained.overfitting > 0
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["overfitting"] == trained.overfitting
    assert facts["epochs_run"] == 30 == len(facts["history"]["train_loss"])
    assert trained.split.fingerprint == parts.fingerprint
    assert trained.dataset.fingerprint == DIGITS.fingerprint
    assert trained.class_names == DIGITS.class_names
    assert trained.recipe == Recipe(epochs=30)
    assert trained.versions["torch"] == torch.__version__
    assert target.access is Access.WHITE_BOX
    assert target.module(DIGITS.batch(parts.members[:2])).shape == (2, 10)


def test_a_loaded_target_is_the_same_as_the_trained_one(made):
    from securitynet.models.loading.load import load_target

    path, _ = made
    fresh = train_target("simple-cnn", "digits", epochs=2, device="cpu")
    loaded = load_target("arch:simple-cnn", weights=path, dataset=DIGITS, device="cpu")
    # The same identity, so signals and trials of one are those of the other.
    assert loaded.identity == fresh.identity
    images = DIGITS.batch(np.arange(20))
    assert torch.equal(loaded.logits(images), fresh.logits(images))


def test_a_complete_model_is_not_trained_again(made):
    path, trained = made
    before = path.stat().st_mtime_ns, path.with_suffix(".json").stat().st_mtime_ns
    notes, epochs = [], []
    again = train_model(config(path), note=notes.append, progress=lambda *state: epochs.append(state))
    assert again == (path, trained)
    assert epochs == []
    assert "complete already" in notes[0]
    assert before == (path.stat().st_mtime_ns, path.with_suffix(".json").stat().st_mtime_ns)


def test_another_model_is_replaced_only_when_told_to(made, tmp_path):
    path = copy_of(made, tmp_path)
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"other settings \(recipe\).*--overwrite"):
        train_model(config(path, epochs=1))
    assert path.read_bytes() == content
    _, trained = train_model(config(path, epochs=1, overwrite=True))
    assert trained.epochs_run == 1
    assert read_target_record(path) == trained
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match="something else"):
        train_model(config(foreign))
    assert foreign.read_bytes() == b"precious"


def test_weights_and_facts_that_do_not_belong_together_are_noticed(made, tmp_path):
    path = copy_of(made, tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match="checksums differ"):
        read_target_record(path)
    with pytest.raises(ModelError, match="checksums differ"):
        train_model(config(path))
    path.unlink()
    with pytest.raises(ModelError, match=r"weights copy\.safetensors that it is about are not"):
        read_target_record(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"num_classes": 10', '"num_classes": "ten"'), "damaged"),
        (lambda text: text.replace('"version": 1', '"version": 2', 1), "another version"),
    ],
)
def test_damaged_facts_are_an_error(made, tmp_path, change, message):
    path = copy_of(made, tmp_path)
    facts = path.with_suffix(".json")
    facts.write_text(change(facts.read_text()))
    with pytest.raises(ModelError, match=message):
        read_target_record(path)


FOREIGN = ["", "\n", "{}", "[1, 2]", "not JSON", '{"format": "securitynet-', b"\xff\xfe\x00"]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_lost_record_is_an_error_and_never_other_members(made, tmp_path, content):
    path = copy_of(made, tmp_path)
    path.with_suffix(".json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match="its members are not known"):
        read_target_record(path)


def test_weights_without_their_record_load_with_a_note(made, tmp_path):
    from securitynet.models.loading.load import load_target

    path = copy_of(made, tmp_path)
    path.with_suffix(".json").unlink()
    assert read_target_record(path) is None
    target = load_target("arch:simple-cnn", weights=path, dataset=DIGITS, normalize="none", device="cpu")
    assert any(note.startswith("WARNING") and "their record copy.json" in note for note in target.notes)


@pytest.mark.parametrize("content", [*FOREIGN, None])
def test_files_of_others_are_left_alone(made, tmp_path, content):
    import safetensors.torch

    path = copy_of(made, tmp_path)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)  # as another program writes weights
    record = path.with_suffix(".json")
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_target_record(path) is None


def test_a_record_that_states_other_members_is_refused(made, tmp_path):
    path = copy_of(made, tmp_path)
    record = path.with_suffix(".json")
    document = json.loads(record.read_text())
    document["split"]["seed"] = 1
    record.write_text(json.dumps(add_digest(document)))
    with pytest.raises(ModelError, match="states other members"):
        read_target_record(path)


def test_test_records_decide_nothing_not_even_with_early_stopping():
    parts = splits.four_way(DIGITS)
    images, labels = DIGITS.images.clone(), DIGITS.labels.copy()
    images[torch.from_numpy(parts.non_members)] = 7
    labels[parts.non_members] = (labels[parts.non_members] + 1) % 10
    spoiled = replace(DIGITS, images=images, labels=labels)
    settings = {"epochs": 8, "patience": 2, "learning_rate": 0.05, "device": "cpu"}
    first, second = (train_target("simple-cnn", data, **settings) for data in (DIGITS, spoiled))
    assert first.identity == second.identity


def test_held_out_members_are_no_members_of_the_model(tmp_path):
    out = tmp_path / "m.safetensors"
    train_target("simple-cnn", DIGITS, epochs=3, patience=1, validation_share=0.2, out=out, device="cpu")
    trained, protocol = read_target_record(out), splits.four_way(DIGITS)
    parts = restore_splits(trained, DIGITS)
    assert trained.split.held_out == 90 == len(protocol.members) - len(parts.members)
    assert set(parts.members) < set(protocol.members)
    assert set(parts.known_members) <= set(parts.members)
    assert np.array_equal(parts.non_members, protocol.non_members)
    assert len(restore_splits(trained, DIGITS, known=0.2).known_members) < len(parts.known_members)


def test_the_split_of_a_model_is_found_again_or_refused(made):
    _, trained = made
    assert restore_splits(trained, DIGITS).fingerprint == splits.four_way(DIGITS).fingerprint
    with pytest.raises(SplitError, match="another version"):
        restore_splits(trained, load("digits", size=9))
    other = trained.model_copy(update={"split": trained.split.model_copy(update={"seed": 1})})
    with pytest.raises(SplitError, match="cannot be reproduced"):
        restore_splits(other, DIGITS)


def test_settings_of_split_and_seed_are_used(tmp_path):
    _, trained = train_model(
        config(tmp_path / "m.safetensors", split="public", split_seed=3, known=0.3, seed=5, channels=3)
    )
    parts = splits.public(load("digits", channels=3), seed=3, known=0.3)
    assert trained.split.fingerprint == parts.fingerprint
    assert trained.recipe.seed == 5
    assert trained.channels == 3
    assert len(trained.preprocessing.mean) == 3
    first, second = (train_target("simple-cnn", DIGITS, epochs=1, seed=seed, device="cpu") for seed in (0, 1))
    assert first.backend.checksum != second.backend.checksum


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "simple-cn"}, UnknownName, "simple-cnn"),
        ({"defense": "dp-sgd"}, ConfigurationError, "not passed"),
        ({"out": "model.pth"}, ModelError, "safetensors"),
        ({"device": "cuda:99"}, ConfigurationError, "does not exist"),
        ({"image_size": 4}, ModelError, "too small"),
        ({"patience": 1, "validation_share": 0.001}, ConfigurationError, "cannot be held out"),
        ({"learning_rate": 1e30}, ModelError, "diverged"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, changes, error, message):
    changes = {"out": tmp_path / "m.safetensors", **changes}
    with pytest.raises(error, match=message):
        train_model(config(**changes))


def test_overrides_that_make_no_sense_are_a_clear_error():
    with pytest.raises(ConfigurationError, match="epoch: extra inputs"):
        train_target("simple-cnn", DIGITS, epoch=3)
    with pytest.raises(ConfigurationError, match="epochs"):
        train_target("simple-cnn", DIGITS, epochs=0)


def test_the_default_file_is_named_by_what_decides_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("SECURITYNET_DATA", str(tmp_path))
    names = {config(None, **changes).weights_file for changes in ({}, {"device": "auto"}, {"overwrite": True})}
    assert len(names) == 1
    (name,) = names
    assert name.parent == tmp_path / "models"
    assert config(None, seed=1).weights_file != name


def test_command_writes_the_model_and_prints_its_facts(tmp_path):
    from securitynet.cli.main import app

    out = tmp_path / "m.safetensors"
    arguments = ["train", "simple-cnn", "--dataset", "digits", "--epochs", "2", "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["recipe"]["epochs"] == 2
    assert facts["weights"] == str(out)
    assert read_target_record(out).test_accuracy == facts["test_accuracy"]
    again = CliRunner().invoke(app, arguments)
    assert "complete already" in again.stderr
    assert "overfitting" in again.stdout
    refused = CliRunner().invoke(app, [*arguments, "--defense", "dp-sgdd"])
    assert isinstance(refused.exception, UnknownName)


def test_describing_a_training_loads_no_torch():
    code = "import securitynet.models.training.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_a_stray_checkpoint_does_not_give_a_finished_model_away(made, tmp_path):
    path = copy_of(made, tmp_path)
    path.with_suffix(".checkpoint").write_bytes(b"anything")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="--overwrite"):
        train_model(config(path, epochs=1))
    assert path.read_bytes() == before
