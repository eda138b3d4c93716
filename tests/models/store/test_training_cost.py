"""Training that takes long is announced, and training that cannot be done is refused before the first epoch."""

import numpy as np
import pytest
import torch

from securitynet.attacks.membership.lira import LiRA
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows.store import specify_shadow, train_shadows
from securitynet.models.store import training_cost
from securitynet.models.store.training_cost import check_training_cost, estimate_training_memory
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.pass_time import describe_time, measure_pass
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe

SMALL = Recipe(epochs=1, batch_size=16)


def spec(side=8, epochs=1, records=20, seed=0):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, side, side), dtype=np.uint8))
    dataset = ImageDataset("noise", images, np.arange(20) % 4, tuple("abcd"), {})
    recipe = SMALL.model_copy(update={"epochs": epochs, "seed": seed})
    return specify_shadow(dataset, np.arange(records), "simple-cnn", recipe)


def check(specs, cache=None):
    check_training_cost(specs, kind="shadows", cache=cache, device="cpu")


@pytest.fixture
def everything_counts(monkeypatch):
    monkeypatch.setattr(training_cost, "LEAST_PIXELS", 1)


def test_the_time_is_the_measured_one_times_all_images(everything_counts, monkeypatch, caplog):
    monkeypatch.setattr(training_cost, "measure_pass", lambda network, shape, device: 2.0)
    check([spec(epochs=10), spec(epochs=10)])  # 2 · 10 · 20 · 2 s
    assert "2 shadow models (simple-cnn, 20 images of 8×8, 10 epochs) will take about 13 minutes here" in caplog.text


def test_what_would_take_months_is_refused_before_anything_is_queried(everything_counts, monkeypatch):
    monkeypatch.setattr(training_cost, "measure_pass", lambda network, shape, device: 86400.0)
    dataset = spec().dataset
    parts = {"train": np.arange(10), "test": np.arange(10, 20)}
    dataset = ImageDataset("noise", dataset.images, dataset.labels, tuple("abcd"), parts)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    target = Target(ModuleBackend(network, reference="linear", checksum="0", example_shape=(3, 8, 8)))
    attack = LiRA(shadows={"count": 4, "architecture": "simple-cnn", "recipe": {"epochs": 1}})
    context = Context(device="cpu")
    with pytest.raises(ConfigurationError, match=r"4 shadow models .* would take about 40 days here") as error:
        attack(target, TrialData(dataset, splits.public(dataset)), context, attack.threat_models[0])
    assert "--reference-models" in error.value.hint


def test_stored_models_are_not_read_for_a_refusal(everything_counts, monkeypatch, tmp_path):
    list(train_shadows([spec()], cache=tmp_path))
    monkeypatch.setattr(training_cost, "measure_pass", lambda network, shape, device: 86400.0)
    specs = [spec(seed=seed) for seed in range(4)]
    with pytest.raises(ConfigurationError, match=r"3 shadow models .* would take about 60 days"):
        check(specs, tmp_path)  # one of them may be the stored one
    assert not any("record" in vars(one) for one in specs)


def test_what_does_not_fit_into_the_memory_is_refused(everything_counts, monkeypatch):
    one = spec(side=32)
    # By hand: weights three times; twice the numbers that the layers of 16 images return.
    weights = 32 * 27 + 32 + 64 * 288 + 64 + 128 * 64 * 64 + 128 + 4 * 128 + 4
    layers = 2 * 32 * 32**2 + 32 * 16**2 + 2 * 64 * 16**2 + 64 * 8**2 + 2 * 128 + 4
    assert estimate_training_memory(one) == 4 * (3 * weights + 2 * 16 * layers)
    monkeypatch.setattr(training_cost, "read_available_memory", lambda: 1_000_000)
    with pytest.raises(ConfigurationError, match="batches of 16"):
        check([one])


def test_models_in_the_store_and_small_ones_cost_nothing(everything_counts, monkeypatch, tmp_path):
    list(train_shadows([spec()], cache=tmp_path))
    monkeypatch.setattr(training_cost, "measure_pass", lambda network, shape, device: 1e9)
    check([spec()], tmp_path)
    monkeypatch.setattr(training_cost, "measure_pass", None)
    monkeypatch.setattr(training_cost, "LEAST_PIXELS", 10**9)
    check([spec(seed=5)])


def test_measuring_leaves_the_random_state_and_the_weights_alone():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(48, 3)).train()
    before, state = network[2].weight.clone(), torch.random.get_rng_state()
    assert 0 < measure_pass(network, (3, 4, 4), torch.device("cpu")) < 1
    assert torch.equal(network[2].weight, before) and network[2].weight.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_times_in_words():
    assert [describe_time(value) for value in (700, 3600 * 3, 86400 * 5.4)] == ["12 minutes", "3 hours", "5 days"]
