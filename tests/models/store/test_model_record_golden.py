"""Keys and records of trained models as the package made them before it had one model record: they are still found.

The records in ``golden_model_records.json`` are files that commit b0e7537 wrote; the weights they are about are made
anew here, because a training's last bits are those of the processor.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from securitynet.assessments.prepare_training import prepare_training
from securitynet.datasets import load
from securitynet.defenses.base import make_defense
from securitynet.files import file_checksum
from securitynet.methods.context import Context
from securitynet.methods.shared_models import describe_shared_model
from securitynet.models.gan import GANTraining, obtain_gan
from securitynet.models.gan.store import GANRecord
from securitynet.models.gan.training import build_networks
from securitynet.models.store.cached_model import ModelSpec, TrainingRun, build_fresh_network, obtain_model
from securitynet.models.store.model_record import CachedModelRecord
from securitynet.models.store.record_files import read_model_record, read_target_record
from securitynet.models.store.train_target import train_model
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.recipe import Recipe

RECORDS = json.loads((Path(__file__).parent / "golden_model_records.json").read_text(encoding="utf-8"))
KEYS = {
    "labels": "8ba3ab8a04cb90eecfabf73bfb4be859",
    "posteriors": "b04a9c648038217517582ad4d7615e32",
    "resized": "29f282a310d40dbbba38290965865637",
    "early stopping": "96db263aaa8165957c11405ba4e2bfc7",
    "dropout": "cd7eb51da2bff427bafdf3f2de276865",
    "dp-sgd": "1cb4cb4dae20b0c96db591ab1782d192",
    "distillation": "74a9ab4685526a6178d23680121476e9",
    "distillation, records aside": "42f38ea6829ead4a77eb16a260b30ce7",
}
GAN_KEY = "79b6c31620c413fccdcb7a97a8616bcd"
GAN_TRAINING = GANTraining(latent=8, width=4, steps=2, batch_size=16, previews=0)

DIGITS = load("digits")
INDICES = np.arange(0, 120, 2, dtype=np.int64)
LABELS = DIGITS.labels[INDICES]
RECIPE = Recipe(epochs=1, batch_size=32, seed=3)


def spec(name):
    """What was trained under a name in `KEYS`."""
    held_out = {"data": "held-out"}
    patient = RECIPE.model_copy(update={"patience": 2, "validation_share": 0.2})
    soft = np.eye(10, dtype=np.float32)[LABELS] * 0.5 + 0.05

    def make(targets=LABELS, architecture="simple-cnn", recipe=RECIPE, defense=None, **more):
        return ModelSpec(DIGITS, INDICES, targets, 10, architecture, recipe, defense=defense, **more)

    return {
        "labels": lambda: make(),
        "posteriors": lambda: make(soft),
        "resized": lambda: make(architecture="timm:test_resnet", input_size=16),
        "early stopping": lambda: make(recipe=patient),
        "dropout": lambda: make(defense=make_defense("dropout")),
        "dp-sgd": lambda: make(defense=make_defense("dp-sgd", {"noise_multiplier": 1.0, "delta": 1e-3})),
        "distillation": lambda: make(defense=make_defense("distillation", held_out)),
        "distillation, records aside": lambda: make(
            defense=make_defense("distillation", held_out), aside=np.arange(1, 21, 2)
        ),
    }[name]()


def write(folder, state, document, name):
    """Weights and an old record about them, in the store's form."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    state = {key: value.detach().clone().contiguous() for key, value in state.items()}
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    (folder / name).write_text(json.dumps({**document, "weights_checksum": file_checksum(weights)}))
    return weights


def never(*_):
    raise AssertionError("trained, though it was there already")


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_models_are_what_they_were(name):
    record = TrainingRun(spec(name), kind="shadows").record
    # The version of the library that builds a network decides its weights too; our own architectures have none.
    assert record.architecture_version.startswith("timm " if name == "resized" else "")
    assert record.model_copy(update={"architecture_version": ""}).key == KEYS[name]
    assert (record.key == KEYS[name]) == (name != "resized")


def test_shared_work_has_the_key_of_what_it_makes(tmp_path):
    piece = describe_shared_model(spec("labels"), "shadows", "a shadow model", Context(cache=tmp_path, device="cpu"))
    assert piece.key == f"shadows/{KEYS['labels']}"
    piece.run(None)
    assert (tmp_path / piece.key / "weights.json").is_file()


@pytest.mark.parametrize(("name", "file"), [("labels", "plain weights.json"), ("dp-sgd", "weights.json")])
def test_a_model_stored_by_an_earlier_version_is_found(tmp_path, name, file):
    wanted = spec(name)
    folder = tmp_path / "shadows" / KEYS[name]
    weights = write(folder, build_fresh_network(wanted).state_dict(), RECORDS[file], "weights.json")
    model = obtain_model(wanted, kind="shadows", cache=tmp_path, device="cpu", progress=never)
    assert model.key == KEYS[name] and model.weights == weights
    assert model.history.train_loss == tuple(RECORDS[file]["history"]["train_loss"])
    record = read_model_record(weights)
    assert record.records == 60 and record.preprocessing == model.target.preprocessing
    assert (record.defense.privacy.steps if name == "dp-sgd" else record.defense) == (2 if name == "dp-sgd" else None)


def test_keys_of_gans_are_what_they_were_and_stored_ones_are_found(tmp_path):
    assert GANRecord.model_validate(RECORDS["gan.json"]).key == GAN_KEY
    generator, discriminator = build_networks(GAN_TRAINING, 1, 8, 5)
    state = {f"generator.{key}": value for key, value in generator.state_dict().items()}
    state |= {f"discriminator.{key}": value for key, value in discriminator.state_dict().items()}
    write(tmp_path / "gans" / GAN_KEY, state, RECORDS["gan.json"], "gan.json")
    gan = obtain_gan(DIGITS, INDICES, GAN_TRAINING, seed=5, cache=tmp_path, device="cpu", progress=never)
    assert gan.key == GAN_KEY
    assert gan.history.generator_loss == tuple(RECORDS["gan.json"]["history"]["generator_loss"])


def test_a_target_trained_by_an_earlier_version_is_complete(tmp_path):
    network = build_fresh_network(spec("labels"))
    weights = write(tmp_path, network.state_dict(), RECORDS["target.json"], "weights.json")
    settings = {"architecture": "simple-cnn", "dataset": "digits", "epochs": 1, "device": "cpu", "out": weights}
    config, defense, backdoor = prepare_training(TrainConfig(**settings, defense="dropout", implant="badnets"))
    notes = []
    _, record = train_model(config, defense=defense, backdoor=backdoor, progress=never, note=notes.append)
    assert "complete already" in notes[0]
    assert record == read_target_record(weights)
    document = json.loads(weights.with_suffix(".json").read_text())
    document["backdoor"] = document.pop("implant")  # the field's name in version 0.1.0
    dumped = record.model_dump(mode="json")
    assert dumped == {key: value for key, value in document.items() if key not in {"overfitting", "epochs_run"}}
    assert (record.overfitting, record.epochs_run) == (document["overfitting"], 1)


def test_the_record_of_a_stored_model_is_written_as_it_was():
    for file in ("weights.json", "plain weights.json"):
        assert CachedModelRecord.model_validate(RECORDS[file]).model_dump(mode="json") == RECORDS[file]
    assert GANRecord.model_validate(RECORDS["gan.json"]).model_dump(mode="json") == RECORDS["gan.json"]


def test_the_name_of_a_trained_target_is_what_it_was():
    config = TrainConfig(architecture="simple-cnn", dataset="digits", epochs=1, device="cpu")
    assert config.weights_file.name == "simple-cnn-digits-6198cf91.safetensors"
