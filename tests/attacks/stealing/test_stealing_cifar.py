"""A public CIFAR-10 network is stolen from: the real case, small."""

from __future__ import annotations

import dataclasses

import pytest

import securitynet.datasets
from securitynet.attacks.stealing.securitynet_surrogate import SecurityNetSurrogate
from securitynet.datasets import splits
from securitynet.methods.data import TrialData
from securitynet.metrics import paired
from securitynet.models.loading.load import load_target
from securitynet.records import Direction
from stealing_cases import context, measured


@pytest.fixture(scope="module")
def cifar(shared_data, tmp_path_factory):
    """(target, data): 2,500 images of its training set are known, 1,000 test images are judged."""
    cache = tmp_path_factory.mktemp("cifar")
    dataset = securitynet.datasets.load(f"parquet:{shared_data / 'cifar10-jpeg'}", limit=5000, cache=cache)
    made = splits.public(dataset)
    weights = shared_data / "cifar10-resnets" / "resnet20-12fca82f.th"
    target = load_target(
        "arch:cifar-resnet20", weights=weights, dataset=dataset, normalize="imagenet", device="cpu", cache=cache
    )
    return target, TrialData(dataset, dataclasses.replace(made, non_members=made.non_members[::5])), cache


def steal(cifar, **settings):
    target, data, cache = cifar
    asked = context(cache)
    attack = SecurityNetSurrogate(**settings)
    return attack(target, data, asked, attack.threat_models[0]), asked.queries()


@pytest.mark.slow
@pytest.mark.real_data
def test_a_cnn_learns_more_from_more_queries_and_from_posteriors(cifar):
    settings = {"architecture": "simple-cnn", "recipe": {"epochs": 15}, "budgets": (300, 2500)}
    soft, bill = steal(cifar, **settings)
    assert bill.total == bill.unique == 2500
    found = measured(soft)
    for name in ("agreement", "accuracy"):
        assert found[f"{name}@budget=300"].high < found[f"{name}@budget=2500"].low
    assert found["agreement@budget=300"].low > found["constant-agreement"].high
    hard, _ = steal(cifar, **{**settings, "budgets": 300}, interface="labels")
    gain = paired.measure_paired_difference(
        "x", soft.surrogate[0] == soft.target, hard.surrogate[0] == soft.target, direction=Direction.LOWER
    )
    assert gain.value > 0, "posteriors teach more than labels at a small budget"
    assert found["calibration-gap@budget=300"].value < measured(hard)["calibration-gap"].value
    assert soft.confidence[1].mean() > 0.3, "the confidence has not collapsed"


@pytest.mark.slow
@pytest.mark.real_data
def test_a_residual_network_is_stolen_into_one_of_its_kind(cifar):
    output, bill = steal(
        cifar, architecture="cifar-resnet20", recipe={"epochs": 3, "learning_rate": 0.05}, budgets=(500, 2500)
    )
    assert bill.unique == 2500
    found = measured(output)
    assert found["agreement@budget=500"].value < found["agreement@budget=2500"].low
