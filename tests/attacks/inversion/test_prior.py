"""Inversion with a GAN that was trained before, on images that are not the target's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from inversion_targets import noise_data, wrapped
from securitynet.attacks import ATTACKS
from securitynet.errors import ConfigurationError, ModelError
from securitynet.methods.context import Context
from securitynet.models.gan import GANTraining, obtain_gan

SHAPE = (1, 8, 8)
OPTIONS = {"evaluator": {"architecture": "simple-cnn", "recipe": {"epochs": 1}}, "rounds": 2, "restarts": 1}


@pytest.fixture(scope="module")
def public_gan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    public = noise_data(2, SHAPE, each=32, seed=5).dataset
    obtain_gan(public, np.arange(64), GANTraining(steps=2, width=4, previews=0), cache=folder, device="cpu")
    return next((folder / "gans").iterdir())


@pytest.fixture(scope="module")
def data():
    whole = noise_data(3, SHAPE, each=32)
    return dataclasses.replace(whole, splits=dataclasses.replace(whole.splits, shadow_train=np.empty(0, np.int64)))


@pytest.fixture(scope="module")
def target():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrapped(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), SHAPE)


@pytest.mark.parametrize("name", ["generative", "boundary-repulsion"])
def test_no_gan_is_trained_and_no_shadow_data_is_needed(name, public_gan, data, target, tmp_path):
    attack = ATTACKS.get(f"inversion.{name}")(**OPTIONS, prior=str(public_gan))
    output = attack(target, data, Context(cache=tmp_path, device="cpu"), attack.threat_models[0])
    assert output.images.shape == (3, *SHAPE)
    assert not (tmp_path / "gans").exists()
    work = attack.shared_work(target, data, Context(cache=tmp_path, device="cpu"))
    assert not any(shared.key.startswith("gans/") for shared in work)


def test_the_trial_is_about_its_weights(public_gan):
    attack = ATTACKS.get("inversion.generative")
    assert "prior" not in attack().model_dump(mode="json")
    checksum = attack(prior=str(public_gan)).prior.checksum
    assert len(checksum) == 64
    with pytest.raises(ConfigurationError, match="checksum"):
        attack(prior={"folder": str(public_gan), "checksum": "0" * 64})


def test_what_is_no_prior_is_said_before_any_work(public_gan, target, tmp_path):
    with pytest.raises(ConfigurationError, match=r"no file gan\.json"):
        ATTACKS.get("inversion.generative")(prior=str(tmp_path))
    other = noise_data(3, (1, 12, 12), each=32)
    weights = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    attack = ATTACKS.get("inversion.generative")(**OPTIONS, prior=str(public_gan))
    with pytest.raises(ModelError, match="1×8×8"):
        attack(wrapped(weights, (1, 12, 12)), other, Context(device="cpu"), attack.threat_models[0])
