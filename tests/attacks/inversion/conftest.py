"""The 8×8 digits as a target that is trained for real, linear targets, and targets that know nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inversion_targets import wrapped
from securitynet.datasets.splits import four_way
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.shadows import obtain_shadow
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe


@pytest.fixture(scope="session")
def inversion_cache(tmp_path_factory):
    """GANs and evaluation classifiers are kept under what decides them, so all tests here train each once."""
    return tmp_path_factory.mktemp("inversion")


@pytest.fixture(scope="session")
def digits_data(digits) -> TrialData:
    return TrialData(digits, four_way(digits))


@pytest.fixture(scope="session")
def digits_target(digits_data, inversion_cache) -> Target:
    recipe = Recipe(epochs=25, optimizer="adam", learning_rate=2e-3, schedule="cosine")
    members, dataset = digits_data.splits.members, digits_data.dataset
    return obtain_shadow(dataset, members, "simple-cnn", recipe, cache=inversion_cache, device="cpu").target


@pytest.fixture(scope="session")
def random_target():
    """Makes targets with random weights."""

    def make(seed: int) -> Target:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build("simple-cnn", 10, channels=1, image_size=8)
        return wrapped(network, (1, 8, 8), f"random {seed}", Preprocessing(mean=(0.3,), std=(0.35,)))

    return make


@pytest.fixture(scope="session")
def linear():
    """Makes linear softmax targets with given weights, K×D, for images of a shape."""

    def make(weights: torch.Tensor, shape, bias=None) -> Target:
        layer = nn.Linear(weights.shape[1], weights.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weights)
            layer.bias.copy_(torch.zeros(len(weights)) if bias is None else bias)
        return wrapped(nn.Sequential(nn.Flatten(), layer), shape, f"linear {float(weights.sum())}")

    return make
