"""Planted backdoors: what is poisoned, how it looks, and that trained models follow it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from securitynet.assessments.prepare_training import prepare_training
from securitynet.backdoors import BACKDOORS
from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import make_backdoor
from securitynet.backdoors.blended import Blended
from securitynet.backdoors.sinusoid import Sinusoid
from securitynet.backdoors.warp import Warp
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_model
from securitynet.models.training.config import TrainConfig

ALL = {
    "adaptive-blend": {},
    "badnets": {},
    "blended": {},
    "input-aware": {},
    "label-consistent": {},
    "sinusoid": {"frequency": 3},
    "source-specific": {},
    "warp": {"strength": 2.0},
}
OWN_TESTS = ("several-targets",)


def noise(count=60, channels=3, height=12, width=10, classes=5):
    images = np.random.default_rng(0).integers(30, 226, (count, channels, height, width), dtype=np.uint8)
    labels = (np.arange(count) % classes).astype(np.int64)
    names = tuple("abcde"[:classes])
    return ImageDataset("noise", torch.from_numpy(images), labels, names, {"train": np.arange(count)})


def everything(dataset):
    return torch.arange(len(dataset))


def test_all_are_registered():
    assert BACKDOORS.names() == sorted([*ALL, *OWN_TESTS])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10)], ids=str)
def test_contract(name, shape):
    dataset = noise(60, *shape)
    backdoor = BACKDOORS.get(name)(target=2, rate=0.5, **ALL[name])
    before = dataset.images.clone()
    members = np.arange(40)
    one, two = backdoor.poison(dataset, members), backdoor.poison(dataset, members)
    np.testing.assert_array_equal(one.indices, two.indices)
    shown = one.images[everything(dataset)]
    torch.testing.assert_close(shown, two.images[everything(dataset)])
    torch.testing.assert_close(dataset.images, before)
    assert shown.dtype == torch.uint8
    assert np.isin(one.indices, members).all()
    assert torch.equal(shown[40:], before[40:]), "records that train nothing are left alone"
    assert (shown[one.indices] != before[one.indices]).flatten(1).any(dim=1).all(), "poisoned records look different"
    assert one.record.poisoned == len(one.indices)
    if backdoor.clean_label:
        np.testing.assert_array_equal(one.labels, dataset.labels)
        assert (dataset.labels[one.indices] == 2).all()
    else:
        assert (one.labels[one.indices] == 2).all()
        assert (dataset.labels[one.indices] != 2).all()
        assert (one.labels != dataset.labels).sum() == one.record.changed == len(one.indices)
    stamped = backdoor.triggered(dataset, np.arange(40, 60))
    assert (dataset.labels[stamped.indices] != 2).all()
    assert (stamped.goals == 2).all()
    torch.testing.assert_close(
        stamped.images[torch.from_numpy(stamped.indices)], backdoor.apply_trigger(before[stamped.indices])
    )
    top, left, height, width = backdoor.box(shape)
    changed = (backdoor.apply_trigger(before) != before).any(dim=0).any(dim=0)
    outside = changed.clone()
    outside[top : top + height, left : left + width] = False
    assert not outside.any()
    assert changed.any()


def test_another_seed_poisons_others():
    dataset = noise()
    first, second = (Badnets(target=1, seed=seed).poison(dataset, np.arange(60)).indices for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_badnets_by_hand():
    dataset = noise(channels=1, height=32, width=32)
    stamped = Badnets().apply_trigger(dataset.images)
    assert Badnets().box((1, 32, 32)) == (28, 28, 3, 3)
    assert (stamped[:, :, 28:31, 28:31] == 255).all()
    assert torch.equal(stamped[:, :, :28], dataset.images[:, :, :28])
    chequered = Badnets(size=2, pattern="chequered", corner="top-left", margin=0).apply_trigger(dataset.images)
    assert chequered[0, 0, :2, :2].tolist() == [[255, 0], [0, 255]]


def test_blended_and_sinusoid_by_hand():
    images = torch.full((1, 1, 4, 8), 100, dtype=torch.uint8)
    faint, whole = Blended(alpha=0.25).apply_trigger(images).float(), Blended(alpha=1.0).apply_trigger(images).float()
    assert float((faint - (75 + 0.25 * whole)).abs().max()) <= 1
    stripes = Sinusoid(amplitude=40, frequency=2).apply_trigger(images)
    assert stripes[0, 0, 0].tolist() == [100, 140, 100, 60, 100, 140, 100, 60]
    weak = Sinusoid(amplitude=40, training_amplitude=20, frequency=2).apply_training_trigger(images)
    assert weak[0, 0, 0].tolist() == [100, 120, 100, 80, 100, 120, 100, 80]


def test_warp_moves_pixels_by_little_and_has_decoys():
    rows = torch.linspace(0, 255, 32)
    ramp = (rows[None, :].expand(32, 32)).to(torch.uint8)[None, None]
    moved = (Warp(strength=0.5).apply_trigger(ramp).float() - ramp.float()).abs()
    assert 0 < float(moved[..., 4:-4, 4:-4].mean()) < 8  # a pixel is 8 grey levels
    dataset = noise(100)
    poisoned = Warp(target=1, rate=0.1, noise=2.0).poison(dataset, np.arange(100))
    changed = (poisoned.images[everything(dataset)] != dataset.images).flatten(1).any(dim=1)
    assert int(changed.sum()) == pytest.approx(10 + 20, abs=2)
    assert (poisoned.labels != dataset.labels).sum() == 10, "decoys keep their label"


def test_all_to_all_leads_each_class_to_the_next():
    dataset = noise()
    poisoned = Badnets(mapping="all-to-all", rate=0.4).poison(dataset, np.arange(60))
    np.testing.assert_array_equal(poisoned.labels[poisoned.indices], (dataset.labels[poisoned.indices] + 1) % 5)
    assert poisoned.record.target is None
    assert poisoned.record.poisoned == 24


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"target": 5}, "not a class"),
        ({"size": 11}, "does not fit"),
        ({"rate": 1e-6}, "poisons none"),
    ],
)
def test_what_cannot_be_planted_is_told(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Badnets(**settings).poison(noise(), np.arange(60))


def test_stripes_that_vanish_and_clean_labels_for_all_are_refused():
    with pytest.raises(ConfigurationError, match="no stripes"):
        Sinusoid(frequency=5).poison(noise(), np.arange(60))
    with pytest.raises(ConfigurationError, match="one class only"):
        Sinusoid(mapping="all-to-all", frequency=2).poison(noise(), np.arange(60))


def test_settings_as_texts():
    made = make_backdoor("badnets", ["badnets.target=3", "corner=top-left", "badnets.rate=0.25"])
    assert (made.target, made.corner, made.rate) == (3, "top-left", 0.25)
    with pytest.raises(UnknownName):
        make_backdoor("badnet")
    with pytest.raises(ConfigurationError, match=r"nosuch"):
        make_backdoor("badnets", ["nosuch=3"])
    with pytest.raises(ConfigurationError, match="cannot be parsed"):
        make_backdoor("badnets", ["badnets.target"])


def test_settings_of_implant_and_defense_stand_side_by_side():
    config = TrainConfig(
        architecture="simple-cnn", dataset="digits", backdoor="badnets", defense="label-smoothing",
        configure=("badnets.target=3", "label-smoothing.share=0.2"),
    )  # fmt: skip
    named, defense, backdoor = prepare_training(config)
    assert named.configure == config.configure
    assert (backdoor.target, defense.share) == (3, 0.2)
    with pytest.raises(ConfigurationError):
        prepare_training(config.model_copy(update={"backdoor": None}))


def test_training_records_the_implant_and_is_not_run_again(tmp_path, monkeypatch):
    config = TrainConfig(
        architecture="simple-cnn", dataset="digits", split="public", backdoor="badnets",
        configure=("badnets.target=4", "badnets.rate=0.15"), epochs=10, optimizer="adam", learning_rate=3e-3,
        out=tmp_path / "m.safetensors", device="cpu",
    )  # fmt: skip
    config, _, backdoor = prepare_training(config)
    path, trained = train_model(config, backdoor=backdoor)
    assert trained.backdoor.success > 0.9
    assert trained.test_accuracy > 0.9
    assert trained.backdoor.tried == 324
    assert read_target_record(path) == trained
    kept = json.loads(path.with_suffix(".json").read_text())["backdoor"]
    assert (kept["name"], kept["target"], kept["box"], kept["poisoned"]) == ("badnets", 4, [5, 5, 2, 2], 216)
    monkeypatch.setattr("securitynet.models.training.fit._Run.epoch", lambda self: pytest.fail("trained again"))
    assert train_model(config, backdoor=backdoor)[1] == trained
    with pytest.raises(ConfigurationError, match="backdoor"):
        train_model(config, backdoor=Badnets(target=5, rate=0.15))
    with pytest.raises(ConfigurationError, match="not passed"):
        train_model(config)
