"""All inversion and stealing attacks on images that are not square: networks that are trained for them stretch them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from inversion_targets import QUICKEST, noise_data, wrapped
from securitynet.attacks import ATTACKS
from securitynet.methods.context import Context
from securitynet.models.gan.networks import Discriminator, GANGenerator

SHAPE, CLASSES = (1, 8, 12), 3
EVALUATOR = {"architecture": "simple-cnn", "recipe": {"epochs": 1}}
SURROGATE = {"architecture": "simple-cnn", "recipe": {"epochs": 1}, "budgets": (24,), "missing_classes": True}
QUICK = {
    **{name: {**options, "evaluator": EVALUATOR} for name, options in QUICKEST.items()},
    "generative": {"gan": {"steps": 2, "width": 4}, "rounds": 2, "evaluator": EVALUATOR},
    "plug-and-play": {"gan": {"steps": 2, "width": 4}, "rounds": 2, "evaluator": EVALUATOR, "pool": 20},
    "boundary-repulsion": {"gan": {"steps": 2, "width": 4}, "rounds": 2, "evaluator": EVALUATOR, "draws": 20},
    "data-free": {"batch": 12, "student_steps": 1, "generator_steps": 1},
    "k-center": {"first": 12, "selection_epochs": 1},
    "knockoff": {"first": 12, "selection_epochs": 1},
    "uncertainty": {"first": 12, "selection_epochs": 1},
    "ml-doctor-surrogate": {"architecture": "own"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("oblong")


@pytest.mark.parametrize("full_name", [*ATTACKS.names("inversion"), *ATTACKS.names("stealing")])
def test_attacks(full_name, cache):
    data = noise_data(CLASSES, SHAPE, each=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        target = wrapped(nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), CLASSES)), SHAPE)
    family, _, name = full_name.partition(".")
    options = {**(SURROGATE if family == "stealing" else {}), **QUICK.get(name, {})}
    attack = ATTACKS.get(full_name)(**options)
    model = next(m for m in attack.threat_models if m.auxiliary.value != "out-of-distribution")
    output = attack(target, data, Context(cache=cache, device="cpu"), model)
    if family == "inversion":
        assert output.images.shape[1:] == SHAPE
    else:
        assert output.surrogate.shape == (1, len(output.indices))


@pytest.mark.parametrize("sides", [(8, 12), (30, 9)])
def test_networks_of_a_gan(sides):
    made = GANGenerator(5, 3, sides, 4).eval()(torch.randn(2, 5))
    assert made.shape == (2, 3, *sides)
    assert Discriminator(3, sides, 4).eval()(made).shape == (2,)
