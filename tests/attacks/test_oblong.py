"""All inversion and stealing attacks on images that are not square, and those with black-box access by labels alone.

Networks that are trained for them stretch the images.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from inversion_targets import QUICKEST, noise_data, wrapped
from securitynet.attacks import ATTACKS
from securitynet.errors import AccessDenied
from securitynet.methods.context import Context
from securitynet.models.gan.networks import Discriminator, GANGenerator
from securitynet.models.targets.interface import LabelsOnly

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
NAMES = [*ATTACKS.names("inversion"), *ATTACKS.names("stealing")]
WHITE_BOX = {"fredrikson", "generative", "plug-and-play"}
NEED_SETTINGS = {
    "knockoff": {"rewards": ("diversity", "loss")},
    "ml-doctor-surrogate": {"recipe": {"epochs": 1, "loss": "cross-entropy"}},
}
"""Settings without which an attack needs posteriors."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("oblong")


def make_target():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrapped(nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), CLASSES)), SHAPE)


def make_attack(full_name, **changes):
    family, _, name = full_name.partition(".")
    return ATTACKS.get(full_name)(**{**(SURROGATE if family == "stealing" else {}), **QUICK.get(name, {}), **changes})


def run(attack, target, cache):
    model = next(m for m in attack.threat_models if m.auxiliary.value != "out-of-distribution")
    return attack(target, noise_data(CLASSES, SHAPE, each=64), Context(cache=cache, device="cpu"), model)


@pytest.mark.parametrize("full_name", NAMES)
def test_attacks(full_name, cache):
    family = full_name.partition(".")[0]
    output = run(make_attack(full_name), make_target(), cache)
    if family == "inversion":
        assert output.images.shape[1:] == SHAPE
    else:
        assert output.surrogate.shape == (1, len(output.indices))


@pytest.mark.parametrize("full_name", [name for name in NAMES if name.partition(".")[2] not in WHITE_BOX])
def test_attacks_by_labels_alone(full_name, cache):
    """Behind an interface there is no network, so that nothing may look for its embeddings when it judges, either."""
    family, _, name = full_name.partition(".")
    target = make_target().through(LabelsOnly())
    if name in NEED_SETTINGS:
        with pytest.raises(AccessDenied, match="labels only"):
            run(make_attack(full_name), target, cache)
        assert target.query_counter.total == 0
    output = run(make_attack(full_name, **NEED_SETTINGS.get(name, {})), target, cache)
    if family == "inversion":
        assert np.isnan(output.embedding_distance).all() and np.isfinite(output.feature_distance).all()
    else:
        assert output.surrogate.shape == (1, len(output.indices))


@pytest.mark.parametrize("sides", [(8, 12), (30, 9)])
def test_networks_of_a_gan(sides):
    made = GANGenerator(5, 3, sides, 4).eval()(torch.randn(2, 5))
    assert made.shape == (2, 3, *sides)
    assert Discriminator(3, sides, 4).eval()(made).shape == (2,)
